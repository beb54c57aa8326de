"""The one base of all errors that ragprof raises on purpose: a sentence and the way out."""

from __future__ import annotations


class RagprofError(Exception):
    """An error for people: names the file, line or field, and says what to do next."""
