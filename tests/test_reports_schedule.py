"""Cron expressions, and the entries for cron, systemd and Kubernetes."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragprof.cli import main
from ragprof.reports import schedule


@pytest.mark.parametrize(
    ("cron", "calendar"),
    [
        ("0 7 * * 1", ["Mon *-*-* 07:00:00"]),
        ("*/15 * * * *", ["*-*-* *:00,15,30,45:00"]),
        ("30 6 1 jan *", ["*-01-01 06:30:00"]),
        ("0 0 * * 0,7", ["Sun *-*-* 00:00:00"]),
        ("0 7 1 * mon-wed", ["*-*-01 07:00:00", "Mon,Tue,Wed *-*-* 07:00:00"]),
        ("0 7 */10 * 1", ["Mon *-*-01,11,21,31 07:00:00"]),
        ("@daily", ["*-*-* 00:00:00"]),
        ("5-10/5 22-23 * * *", ["*-*-* 22,23:05,10:00"]),
    ],
)
def test_systemd_times(cron, calendar):
    assert schedule.on_calendar(schedule.parse(cron)) == calendar


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("0 7 * *", "4 fields, not 5"),
        ("60 7 * * 1", "minute: '60' is not 0 to 59"),
        ("0 24 * * *", "hour"),
        ("0 7 0 * *", "day of month"),
        ("0 7 * foo *", "jan to dec"),
        ("0 7 * * 8", "day of week"),
        ("*/0 * * * *", "step"),
        ("9-3 * * * *", "ends before it begins"),
        ("0 0 30 2 *", "never happens"),
        ("0 0 31 4,6 *", "never happens"),
        ("-1 * * * *", "minute"),
        ("\u0663 * * * *", "minute"),
    ],
)
def test_wrong_expressions(cron, message):
    with pytest.raises(schedule.ScheduleError, match=message):
        schedule.parse(cron)


@given(
    st.sets(st.integers(0, 59), min_size=1),
    st.sets(st.integers(0, 23), min_size=1),
    st.sets(st.integers(0, 6), min_size=1, max_size=6),
)
def test_lists_say_what_they_say(minutes, hours, days):
    words = [",".join(map(str, sorted(values))) for values in (minutes, hours, days)]
    cron = schedule.parse(f"{words[0]} {words[1]} * * {words[2]}")
    assert set(cron.minutes) == minutes
    assert set(cron.hours) == hours
    assert set(cron.weekdays or ()) == days
    (calendar,) = schedule.on_calendar(cron)
    assert calendar.count(",") == sum(
        len(values) - 1 if len(values) < whole else 0
        for values, whole in ((minutes, 60), (hours, 24), (days, 7))
    )


def entry(form: str, **more: object) -> str:
    values = {"recording": "/data/it's 5%.ragprof", "n": 3}
    arguments = {"notebook": "a_report", "values": values, "out": Path("/reports/x")} | more
    return schedule.text("0 7 * * 1", form, timeout=60, **arguments)


def test_cron_line_is_what_a_shell_runs():
    line = entry("cron").splitlines()[-1]
    assert line.startswith("0 7 * * 1 ")
    words = shlex.split(line.split(" ", 5)[5].replace(r"\%", "%"))
    assert words[1:] == [
        "report", "a_report", "-p", "recording=/data/it's 5%.ragprof", "-p", "n=3",
        "--out", "/reports/x", "--timeout", "60",
    ]  # fmt: skip
    assert "%" not in line.replace(r"\%", "")


def test_systemd_units():
    text = entry("systemd")
    assert "OnCalendar=Mon *-*-* 07:00:00" in text
    assert "Persistent=true" in text
    assert '"recording=/data/it\'s 5%%.ragprof"' in text


def test_cronjob():
    text = entry("cronjob", image="registry/ragprof:1")
    assert 'schedule: "0 7 * * 1"' in text
    assert '- "recording=/data/it\'s 5%.ragprof"' in text
    assert "activeDeadlineSeconds: 120" in text
    with pytest.raises(schedule.ScheduleError, match="--image"):
        entry("cronjob")


def test_command_line(tmp_path, capsys):
    assert main(["report", "investigate_slow_traces", "--out", "x", "--as", "cron"]) == 1
    assert "--as goes with --schedule" in capsys.readouterr().err
