"""A report at fixed times: the entry for cron, systemd or Kubernetes, printed and not installed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragprof.errors import RagprofError

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS: tuple[tuple[str, int, int, list[str]], ...] = (
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day of month", 1, 31, []),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_NAME = re.compile(r"[^a-z0-9]+")


class ScheduleError(RagprofError):
    """A cron expression that is wrong, or an entry that cannot be made."""


@dataclass(frozen=True)
class Cron:
    """A cron expression as the values that each field allows; days of week count from Sunday 0."""

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...] | None
    """None: every day of the month."""
    months: tuple[int, ...] | None
    weekdays: tuple[int, ...] | None


def parse(expression: str) -> Cron:
    """A five-field cron expression, or a nickname such as ``@daily``.

    Raises ScheduleError naming the field that is wrong, also for a day that no month has.
    """
    text = _NICKNAMES.get(expression.strip().lower(), expression.strip())
    words = text.split()
    if len(words) != 5:
        raise ScheduleError(
            f"{expression!r} is not a cron expression: it has {len(words)} fields, not 5 (minute, "
            "hour, day of month, month, day of week); '0 7 * * 1' is Mondays at 7:00"
        )
    sets = [_field(word, *field) for word, field in zip(words, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = sets
    weekdays = tuple(sorted({day % 7 for day in weekdays}))
    whole = [word.startswith("*") for word in words]  # as cron: `*/2` counts as unrestricted
    if not whole[2] and whole[4] and min(days) > max(_LONGEST[month - 1] for month in months):
        raise ScheduleError(
            f"{expression!r} never happens: no such month has a day {min(days)}; "
            "change the day of month or the month"
        )
    return Cron(
        text,
        minutes,
        hours,
        None if words[2] == "*" else days,
        None if words[3] == "*" else months,
        None if words[4] == "*" or len(weekdays) == 7 else weekdays,
    )


def _field(word: str, name: str, low: int, high: int, names: list[str]) -> tuple[int, ...]:
    def number(text: str) -> int:
        if text.lower() in names:
            return names.index(text.lower()) + low
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            allowed = f"{low} to {high}" + (f" or {names[0]} to {names[-1]}" if names else "")
            raise ScheduleError(f"cron field {name}: {text!r} is not {allowed}; correct {word!r}")
        return int(text)

    values: set[int] = set()
    for part in word.split(","):
        span, slash, step_text = part.partition("/")
        step = 1
        if slash:
            if not step_text.isdigit() or int(step_text) == 0:
                raise ScheduleError(f"cron field {name}: the step in {part!r} is not above 0")
            step = int(step_text)
        if span == "*":
            first, last = low, high
        elif "-" in span:
            begin, _, end = span.partition("-")
            first, last = number(begin), number(end)
            if first > last:
                raise ScheduleError(f"cron field {name}: {span!r} ends before it begins")
        else:
            first = number(span)
            last = high if slash else first
        values.update(range(first, last + 1, step))
    return tuple(sorted(values))


def on_calendar(cron: Cron) -> list[str]:
    """systemd's OnCalendar expressions for a cron expression.

    Two when both days of month and days of week are given: cron runs on either, systemd on both.
    """
    names = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
    months = _listed(cron.months)
    clock = f"{_listed(cron.hours, 24)}:{_listed(cron.minutes, 60)}:00"
    week = "" if cron.weekdays is None else ",".join(names[day] for day in cron.weekdays) + " "
    date = f"*-{months}-{_listed(cron.days)}"
    fields = cron.text.split()
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    if either and cron.days is not None and cron.weekdays is not None:
        return [f"{date} {clock}", f"{week}*-{months}-* {clock}"]
    return [f"{week}{date} {clock}"]


def _listed(values: tuple[int, ...] | None, whole: int = 0) -> str:
    if values is None or len(values) == whole:
        return "*"
    return ",".join(f"{value:02d}" for value in values)


def text(
    expression: str,
    form: str,
    *,
    notebook: str,
    values: Mapping[str, Any],
    out: Path,
    timeout: float,
    image: str | None = None,
) -> str:
    """The entry as text: a line of a crontab, a service and a timer, or a CronJob.

    Raises ScheduleError for a wrong expression, and for a CronJob without an image.
    """
    cron = parse(expression)
    path = Path(notebook)
    where = str(path.absolute()) if path.suffix == ".ipynb" and path.is_file() else notebook
    words = ["report", where]
    for name, value in values.items():
        words += ["-p", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    label = _NAME.sub("-", path.stem.lower()).strip("-") or "report"
    if form == "cronjob":
        return _cronjob(cron, words, out, timeout, label, image)
    words = [_program(), *words, "--out", str(out.absolute()), "--timeout", f"{timeout:g}"]
    if any("\n" in word for word in words):
        raise ScheduleError("a parameter with a line break cannot stand in an entry; use a file")
    if form == "systemd":
        return _systemd(cron, words, timeout, label)
    line = shlex.join(words).replace("%", r"\%")  # cron ends the command at a bare %
    return f"# add with: crontab -e\n{cron.text} {line}"


def _program() -> str:
    beside = Path(sys.executable).parent / "ragprof"
    return str(beside) if beside.exists() else shutil.which("ragprof") or "ragprof"


def _systemd(cron: Cron, words: list[str], timeout: float, label: str) -> str:
    command = " ".join(_systemd_word(word) for word in words)
    times = "\n".join(f"OnCalendar={one}" for one in on_calendar(cron))
    name = f"ragprof-{label}"
    return (
        f"# ~/.config/systemd/user/{name}.service\n[Unit]\nDescription=ragprof report {label}\n\n"
        f"[Service]\nType=oneshot\nExecStart={command}\nTimeoutStartSec={timeout + 60:g}\n\n"
        f"# ~/.config/systemd/user/{name}.timer\n[Unit]\nDescription=ragprof report {label}\n\n"
        f"[Timer]\n{times}\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n\n"
        f"# install with: systemctl --user enable --now {name}.timer"
    )


def _systemd_word(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return escaped if re.fullmatch(r"[\w@%+=:,./$-]+", escaped) else f'"{escaped}"'


def _cronjob(
    cron: Cron, words: list[str], out: Path, timeout: float, label: str, image: str | None
) -> str:
    if not image:
        raise ScheduleError("a CronJob needs a container image with ragprof: give it as --image")
    arguments = [*words, "--out", f"/reports/{out.name}", "--timeout", f"{timeout:g}"]
    lines = "".join(f"\n                - {json.dumps(one)}" for one in arguments)
    return f"""# install with: kubectl apply -f FILE
apiVersion: batch/v1
kind: CronJob
metadata:
  name: ragprof-{label[:40].strip("-")}
spec:
  schedule: {json.dumps(cron.text)}
  timeZone: Etc/UTC
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      backoffLimit: 0
      activeDeadlineSeconds: {int(timeout) + 60}
      template:
        spec:
          restartPolicy: Never
          containers:
            - name: report
              image: {json.dumps(image)}
              command: ["ragprof"]
              args:{lines}
              securityContext:
                allowPrivilegeEscalation: false
                readOnlyRootFilesystem: true
                capabilities:
                  drop: ["ALL"]
              volumeMounts:
                - name: reports
                  mountPath: /reports
                - name: tmp
                  mountPath: /tmp
          volumes:
            - name: reports
              persistentVolumeClaim:
                claimName: ragprof-reports
            - name: tmp
              emptyDir: {{}}"""
