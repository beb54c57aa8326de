"""The `ragprof investigate` command in an annotation: people paste it into a shell.

Values of labels come from requests. They pass an allow-list of characters on both ways: in
Prometheus's own template, and in Python.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

ALLOWED = "A-Za-z0-9_./:{}@%+=,-"
"""Characters of a label value that may stand in a command, inside single quotes."""
_OTHER = re.compile(f"[^{ALLOWED}]")
CONFIG = "ragprof.toml"
"""What is investigated: the configuration of a capture, or a Recording instead."""


def plain(value: str) -> str:
    """A label's value with `_` for every character that is not allowed."""
    return _OTHER.sub("_", value)


def template(label: str) -> str:
    """The same as a Prometheus template over a label of the alert."""
    return f'{{{{ reReplaceAll "[^{ALLOWED}]" "_" $labels.{label} }}}}'


def annotation(alert: str, labels: tuple[str, ...]) -> str:
    """The command as a Prometheus template; the time is that of the evaluation."""
    now = (
        '{{ with query "time()" }}{{ (. | first | value | toTime).Format "2006-01-02T15:04:05Z" }}'
        "{{ end }}"
    )
    words = [f"ragprof investigate {CONFIG} --alert '{plain(alert)}@{now}'"]
    words += [f"--label '{label}={template(label)}'" for label in labels]
    return " ".join(words)


def command(subject: str, alert: str, at: float, labels: dict[str, str]) -> str:
    """The command for one alert; `at` in s since 1970, `subject` a Recording or configuration."""
    when = datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    words = [f"ragprof investigate '{plain(subject)}' --alert '{plain(alert)}@{when}'"]
    words += [f"--label '{plain(name)}={plain(value)}'" for name, value in sorted(labels.items())]
    return " ".join(words)
