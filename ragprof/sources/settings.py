"""One section of the configuration, read field by field, and secrets that never show.

A secret is given as `{env = "NAME"}`, `{file = "/path"}` or `{keyring = "service/user"}`; it is
read when it is used, and its text exists nowhere else.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ragprof.errors import RagprofError


class ConfigError(RagprofError):
    """A configuration that cannot be used; names the field and the way out."""


class Secret:
    """Where a secret is; `reveal` reads it. Prints its place, never its text."""

    __slots__ = ("_kind", "_place")

    def __init__(self, kind: str, place: str) -> None:
        self._kind, self._place = kind, place

    def __repr__(self) -> str:
        return f"Secret({self._kind} {self._place})"

    def reveal(self) -> str:
        """The text, without line ends at its end. Raises ConfigError when it is not there."""
        if self._kind == "env":
            text = os.environ.get(self._place, "")
        elif self._kind == "file":
            try:
                text = Path(self._place).expanduser().read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"The secret's file {self._place} cannot be read "
                    f"({getattr(error, 'strerror', None) or 'not text'}); check the path and its "
                    "permissions."
                ) from None
        else:
            text = _from_keyring(self._place)
        text = text.rstrip("\r\n")
        if not text:
            raise ConfigError(
                f"The secret in {self._kind} {self._place} is empty; set it before you start."
            )
        return text


def _from_keyring(place: str) -> str:
    service, _, user = place.rpartition("/")
    try:
        keyring = importlib.import_module("keyring")
    except ModuleNotFoundError:
        raise ConfigError(
            f"The secret in keyring {place} needs the package keyring: pip install keyring, or "
            "give the secret as {env = …} or {file = …}."
        ) from None
    try:
        return str(keyring.get_password(service, user) or "")
    except Exception as error:  # noqa: BLE001  # each back-end of keyring has errors of its own
        raise ConfigError(
            f"The keyring does not give {place} ({type(error).__name__}); unlock it, or give the "
            "secret as {env = …} or {file = …}."
        ) from None


class Settings:
    """The fields of one section; every getter raises ConfigError that names `where`.field.

    `done` refuses fields that nobody asked for, so that a typing error does not pass.
    """

    def __init__(self, name: str, fields: Mapping[str, Any], where: str = "") -> None:
        self.name, self.where = name, where or name
        self._fields, self._asked = dict(fields), set[str]()

    def text(self, field: str, default: str | None = None) -> str:
        value = self._get(field, default)
        if not isinstance(value, str):
            raise self.wrong(field, 'must be text in quotes, such as "http://host:9090"')
        return value

    def number(self, field: str, default: float | None = None) -> float:
        value = self._get(field, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(field, "must be a number")
        return value

    def flag(self, field: str, default: bool) -> bool:
        value = self._get(field, default)
        if not isinstance(value, bool):
            raise self.wrong(field, "must be true or false")
        return value

    def texts(self, field: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """A list of texts; one text stands for a list of one."""
        value = self._get(field, list(default))
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(field, 'must be a list of texts, such as ["a", "b"]')
        return tuple(value)

    def table(self, field: str) -> dict[str, Any]:
        """A table of the file, empty when absent."""
        value = self._get(field, {})
        if not isinstance(value, dict):
            raise self.wrong(field, "must be a table, such as {a = 1}")
        return value

    def secret(self, field: str) -> Secret | None:
        """A secret's place; None when the field is absent. Text in the file itself is refused."""
        value = self._get(field, "")
        return None if value == "" else self.as_secret(field, value)

    def as_secret(self, field: str, value: Any) -> Secret:
        """A value that must be `{env = …}`, `{file = …}` or `{keyring = …}`."""
        if isinstance(value, dict) and len(value) == 1:
            [(kind, place)] = value.items()
            if kind in ("env", "file", "keyring") and isinstance(place, str) and place:
                return Secret(kind, place)
        raise self.wrong(
            field,
            'holds a secret: say where it is, {env = "NAME"}, {file = "/path"} or '
            '{keyring = "service/user"}; it must not stand in the file',
        )

    def fields(self, *without: str) -> dict[str, Any]:
        """The fields as written, but these; whoever takes them checks them."""
        self._asked.update(self._fields)
        return {name: value for name, value in self._fields.items() if name not in without}

    def has(self, field: str) -> bool:
        return field in self._fields

    def wrong(self, field: str, why: str) -> ConfigError:
        """The error for a field; it does not repeat the value, which may be a secret."""
        return ConfigError(f"{self.where}.{field} {why}.")

    def done(self) -> None:
        """Raises ConfigError for a field that was never asked for."""
        unknown = sorted(set(self._fields) - self._asked)
        if unknown:
            raise ConfigError(
                f"{self.where}.{unknown[0]} is not a field; "
                f"{self.where} knows {', '.join(sorted(self._asked))}."
            )

    def _get(self, field: str, default: Any) -> Any:
        self._asked.add(field)
        value = self._fields.get(field, default)
        if value is None:
            raise self.wrong(field, "is missing; add it to the file")
        return value
