"""The configuration of a capture: what is wrong is named, and nothing is begun."""

from __future__ import annotations

from pathlib import Path

import pytest

import ragprof as rp
from ragprof.capturing import config, live
from ragprof.cli import main
from ragprof.sources.settings import ConfigError

S = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no source"),
        ("[sources.prom]\nurl='http://x'", "sources.prom is of no known kind"),
        ("[sources.prometheus]\nurl='http://x'\ntokn='x'", "tokn is not a field"),
        ("[sources.prometheus]\n", "url is missing"),
        ("[sources.prometheus]\nurl='http://x'\n[capture]\nsince='soon'", "since is 'soon'"),
        ("[sources.prometheus]\nurl='http://x'\n[capture]\nparallel=0", "parallel must be"),
        ("[sources.prometheus]\nurl='http://x'\n[redaction]\ndenny=[]", "denny is not a field"),
        ("[sources.prometheus\n", "is not TOML"),
        ("sources = 3", "sources must be a table"),
    ],
)
def test_a_configuration_that_cannot_be_names_its_field(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ragprof.toml").write_text(text)
    code = main(
        ["capture", "--config", str(tmp_path / "ragprof.toml"), "--out", str(tmp_path / "o")]
    )
    assert code == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30m", 1800), ("1h30m", 5400), ("45s", 45), ("250ms", 0.25), ("1d", 86400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert config.duration(text) == seconds * S


@pytest.mark.parametrize("text", ["", "30", "m", "30 minutes", "-5m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write a duration"):
        config.duration(text)


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(rp.RecordingError, match="no time zone"):
        live.window_of(config.read({"sources": {"jaeger": {}}}), None, "2026-01-01T00:00:00", None)
