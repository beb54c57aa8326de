"""What is in a profile file: its bytes unpacked, its text decoded, its JSON parsed, each once.

Formats are told from this. Unpacking is bounded, so a small file cannot fill the memory.
"""

from __future__ import annotations

import codecs
import functools
import json
import zlib
from pathlib import Path
from typing import Any

from ragprof.profiles.model import ProfileError

MOST_BYTES = 1 << 30
"""The largest file that is read, also after unpacking, unless the caller allows more."""

_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 24
_FREE_BYTES = 1 << 26  # unpacked without a look at the ratio
_MOST_RATIO = 400  # profiles shrink 5 to 100 times; deflate at most 1,032 times
_HEAD = 1 << 16


class Content:
    """The content of a file; ``name`` is its file name, which tells the format as a last resort."""

    def __init__(self, data: bytes, name: str = "", most_bytes: int = MOST_BYTES) -> None:
        if len(data) > most_bytes:
            raise ProfileError(_too_large(len(data), most_bytes))
        self._stored = data
        self.name = name
        self._most_bytes = most_bytes

    @classmethod
    def of_file(cls, path: str | Path, most_bytes: int = MOST_BYTES) -> Content:
        """The content of a file. Raises `ProfileError` when it cannot be read or is too large."""
        path = Path(path)
        try:
            size = path.stat().st_size
            if size > most_bytes:
                raise ProfileError(_too_large(size, most_bytes))
            with path.open("rb") as file:
                return cls(file.read(most_bytes + 1), path.name, most_bytes)
        except OSError as error:
            raise ProfileError(f"it cannot be read: {error.strerror or error}.") from error

    @functools.cached_property
    def data(self) -> bytes:
        """The bytes, unpacked when they are gzip. Raises `ProfileError` on broken gzip."""
        return unpacked(self._stored, self._most_bytes)

    @functools.cached_property
    def _encoding(self) -> str:
        """UTF-8, or UTF-16 with or without its mark."""
        start = self.data[:_HEAD]
        for mark, encoding in (
            (codecs.BOM_UTF8, "utf-8-sig"),
            (codecs.BOM_UTF16_LE, "utf-16"),
            (codecs.BOM_UTF16_BE, "utf-16"),
        ):
            if start.startswith(mark):
                return encoding
        if start[1::2].count(0) > len(start) // 4:
            return "utf-16-le"
        if start[::2].count(0) > len(start) // 4:
            return "utf-16-be"
        return "utf-8"

    @functools.cached_property
    def text(self) -> str:
        """The text: UTF-8, or UTF-16 with or without its mark; what is neither becomes U+FFFD."""
        return self.data.decode(self._encoding, "replace")

    @functools.cached_property
    def start(self) -> str:
        """The beginning of the text, to the end of a line if that is not too long."""
        if self._encoding.startswith("utf-16"):
            return self.data[:_BLOCK].decode(self._encoding, "replace")
        size = self.data.find(b"\n", _HEAD - 1, _BLOCK) + 1 or _BLOCK
        return self.data[:size].decode(self._encoding, "replace")

    @property
    def is_utf8(self) -> bool:
        """Whether the bytes are read as UTF-8 and have no mark."""
        return self._encoding == "utf-8"

    @property
    def is_binary(self) -> bool:
        """Whether the bytes are no text in any encoding."""
        return "\x00" in self.start or self.start[:512].count("\ufffd") > 8

    @property
    def is_json(self) -> bool:
        """Whether the text begins as a JSON object or array does."""
        return not self.is_binary and self.start.lstrip()[:1] in ("{", "[")

    @functools.cached_property
    def _parsed(self) -> tuple[Any, str]:
        if not self.is_json:
            return None, ""
        try:
            return json.loads(self.text), ""
        except RecursionError:
            return None, "it nests deeper than any profile does"
        except json.JSONDecodeError as error:
            return None, f"line {error.lineno}, column {error.colno}: {error.msg}"
        except ValueError as error:  # a number of more digits than Python converts
            return None, str(error)

    @property
    def document(self) -> Any:
        """The JSON document, or None when it is none."""
        return self._parsed[0]

    @property
    def json_fault(self) -> str:
        """Where and why the text that begins as JSON is not JSON; else empty."""
        return self._parsed[1]

    def has(self, *keys: str) -> bool:
        """Whether it is a JSON object with all these keys."""
        return isinstance(self.document, dict) and all(key in self.document for key in keys)


def unpacked(data: bytes, most_bytes: int = MOST_BYTES) -> bytes:
    """The content of gzip data, or the data when it is not gzip.

    Raises `ProfileError` when the data is cut short or damaged, unpacks to more than
    ``most_bytes``, or shrinks as no profile does.
    """
    if not data.startswith(_GZIP):
        return data
    parts: list[bytes] = []
    size, rest = 0, data
    allowed = min(most_bytes, max(_FREE_BYTES, _MOST_RATIO * len(data)))
    while rest.startswith(_GZIP):  # a file may hold several members
        reader = zlib.decompressobj(wbits=31)
        while not reader.eof:
            try:
                part = reader.decompress(rest, _BLOCK)
            except zlib.error as error:
                raise ProfileError(f"its gzip data is damaged: {error}.") from error
            rest = reader.unconsumed_tail
            if not part and not rest and not reader.eof:
                raise ProfileError(
                    f"its gzip data ends in the middle, after {size:,} bytes of content: "
                    "the file was cut short, copy or record it again."
                )
            parts.append(part)
            size += len(part)
            if size > allowed:
                raise ProfileError(
                    _too_large(size, most_bytes)
                    if size > most_bytes
                    else f"{len(data):,} bytes of gzip unpack to more than {allowed:,}, as no "
                    "profile does: unpack it by hand if it is one."
                )
        rest = reader.unused_data
    return b"".join(parts)


def _too_large(size: int, most_bytes: int) -> str:
    return (
        f"it has {size:,} bytes or more; at most {most_bytes:,} are read: record for a shorter "
        "time, or allow more with max_bytes."
    )
