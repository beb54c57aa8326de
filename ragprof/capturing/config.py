"""The configuration of a capture, `ragprof.toml`: sources, window, redaction.

[capture]
since = "30m"                  # the window, unless the command says otherwise
services = ["rag-api"]
parallel = 4                   # requests at once
most_rows = 20_000_000         # a larger plan is refused

[sources.prometheus]           # the section's name is the kind, or `kind` says it
url = "https://prometheus.example:9090"
token = { env = "PROMETHEUS_TOKEN" }

[redaction]                    # as `ragprof recording redact` has them
deny = ["user.*"]
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragprof.redaction import DENY, Rules
from ragprof.sources.settings import ConfigError, Settings
from ragprof.sources.source import Source

MODULES = {
    "prometheus": "ragprof.sources.prometheus",
    "alertmanager": "ragprof.sources.alertmanager",
    "elasticsearch": "ragprof.sources.elasticsearch",
    "jaeger": "ragprof.sources.jaeger",
    "tempo": "ragprof.sources.tempo",
    "zipkin": "ragprof.sources.zipkin",
    "otlp": "ragprof.sources.otlp_files",
    "stacks": "ragprof.sources.stacks",
}
"""Kind of a source -> module with `connect(settings) -> Source`."""

SINCE = "30m"
PARALLEL = 4
MOST_ROWS = 20_000_000
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_UNITS = {"ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9, "d": 86400e9, "w": 7 * 86400e9}


@dataclass(frozen=True)
class Config:
    """What a file says. `sections` are the sources as written, secrets being places only."""

    path: str
    sections: Mapping[str, Mapping[str, Any]]
    since: str = SINCE
    services: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    min_duration: int = 0  # ns
    parallel: int = PARALLEL
    most_rows: int = MOST_ROWS
    redaction: Mapping[str, Any] | None = None

    def fingerprint(self) -> str:
        """Changes when anything of the file does that bears on what is fetched."""
        said: list[Any] = [self.sections, self.services, self.operations, dict(self.tags)]
        said += [self.min_duration, self.redaction]
        text = json.dumps(said, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def rules(self, key: bytes | None = None) -> Rules | None:
        """The redaction that is asked for; None when none is. `key` hashes ids."""
        if self.redaction is None:
            return None
        said = dict(self.redaction)
        rules = Rules(
            allow=tuple(said.get("allow", ())),
            deny=(*DENY, *said.get("deny", ())),
            texts=said.get("texts", True),
            ids=said.get("ids", False),
        )
        if key is not None:
            rules.key = key
        return rules


def read(config: str | Path | Mapping[str, Any]) -> Config:
    """A configuration from a TOML file or a mapping of the same form.

    Raises ConfigError that names the field. No source is asked.
    """
    if isinstance(config, Mapping):
        return _parse(config, "configuration")
    path = Path(config)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"{path} cannot be read ({why}); check --config.") from None
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}; correct that line.") from None
    return _parse(content, str(path))


def _parse(content: Mapping[str, Any], path: str) -> Config:
    top = Settings("", content, path)
    sources = top.table("sources")
    if not sources:
        raise ConfigError(f"{path} names no source; add a section such as [sources.prometheus].")
    for name, section in sources.items():
        if not isinstance(section, dict):
            raise ConfigError(f"{path}: sources.{name} must be a section, [sources.{name}].")
        kind = section.get("kind", name)
        if kind not in MODULES:
            raise ConfigError(
                f"{path}: sources.{name} is of no known kind ({kind!r}); set kind to one of "
                f"{', '.join(MODULES)}."
            )
    said = Settings("capture", top.table("capture"), f"{path}: capture")
    redaction = top.table("redaction") if top.has("redaction") else None
    top.done()
    found = Config(
        path=path,
        sections=sources,
        since=said.text("since", SINCE),
        services=said.texts("services"),
        operations=said.texts("operations"),
        tags={key: str(value) for key, value in said.table("tags").items()},
        min_duration=duration(said.text("min_duration", "0s"), f"{path}: capture.min_duration"),
        parallel=_whole(said, "parallel", PARALLEL),
        most_rows=_whole(said, "most_rows", MOST_ROWS),
        redaction=redaction,
    )
    said.done()
    duration(found.since, f"{path}: capture.since")
    if redaction is not None:
        rules = Settings("redaction", redaction, f"{path}: redaction")
        for name in ("allow", "deny"):
            rules.texts(name)
        for name, default in (("texts", True), ("ids", False)):
            rules.flag(name, default)
        rules.done()
    return found


def connect(config: Config) -> list[Source]:
    """The sources of a configuration, in its order. Raises ConfigError."""
    return [connect_one(config, name) for name in config.sections]


def connect_one(config: Config, name: str) -> Source:
    """One source by the name of its section. Raises ConfigError."""
    section = dict(config.sections[name])
    kind = section.pop("kind", name)
    settings = Settings(name, section, f"{config.path}: sources.{name}")
    source: Source = importlib.import_module(MODULES[kind]).connect(settings)
    settings.done()
    return source


def duration(text: str, where: str = "duration") -> int:
    """Nanoseconds of "30m", "1h30m", "45s", "250ms"; raises ConfigError that names `where`."""
    stripped = text.strip().lower()
    parts = _DURATION.findall(stripped)
    if not parts or _DURATION.sub("", stripped).strip():
        raise ConfigError(f'{where} is {text!r}; write a duration such as "30m" or "1h30m".')
    return round(sum(float(number) * _UNITS[unit] for number, unit in parts))


def _whole(settings: Settings, name: str, default: int) -> int:
    value = settings.number(name, default)
    if value < 1 or value != int(value):
        raise settings.wrong(name, "must be a whole number above 0")
    return int(value)
