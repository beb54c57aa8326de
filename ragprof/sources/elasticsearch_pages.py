"""Answers of `_search`, decoded no further than to the fields of their documents.

Documents of one shipper have the same fields. A reader that has seen some pages has a struct made
for them, which takes a third of what a dict takes.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

Document = dict[str, msgspec.Raw]
"""The top level of a document: field -> its JSON as it stands there."""

Documents = list[Document] | list[msgspec.Struct]
"""Documents of one page: dicts, or structs of one type, whose `__struct_encode_fields__` are the
names of the fields. What a struct's document lacks is ABSENT.
"""

ABSENT = msgspec.Raw(b"")
MOST_FIELDS = 200  # of a struct
SPARSE = 2  # times the fields of an average document: with more names there is no struct


class Hit(msgspec.Struct):
    source: dict[str, msgspec.Raw] = msgspec.field(name="_source", default_factory=dict)
    sort: msgspec.Raw = msgspec.Raw(b"[]")


class Hits(msgspec.Struct):
    hits: list[Hit] = []


class Shards(msgspec.Struct):
    failed: int = 0
    failures: msgspec.Raw = msgspec.Raw(b"[]")


class Page(msgspec.Struct):
    """One answer of `_search`."""

    took: int  # in every answer, while an empty list of hits is left out
    hits: Hits = msgspec.field(default_factory=Hits)
    shards: Shards = msgspec.field(name="_shards", default_factory=Shards)
    timed_out: bool = False
    pit_id: str = ""
    aggregations: msgspec.Raw = msgspec.Raw(b"{}")


page = msgspec.json.Decoder(Page).decode
"""A page whose documents are dicts; raises msgspec.DecodeError (a ValueError)."""


class PageReader:
    """Pages of one index pattern, one after the other; safe between threads."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._documents = self._fields = 0  # that were dicts
        self._learned: Any = None  # decodes pages with documents as structs

    def __call__(self, body: bytes) -> Page:
        """A page, its documents dicts or structs; raises msgspec.DecodeError (a ValueError)."""
        learned = self._learned
        if learned is not None:
            try:
                found: Page = learned(body)
            except msgspec.ValidationError:  # a field that is new
                pass
            else:
                return found
        plain = page(body)
        self._learn(plain)
        return plain

    def _learn(self, plain: Page) -> None:
        documents = [hit.source for hit in plain.hits.hits]
        names = dict.fromkeys(self._names)
        for document in documents:
            names.update(dict.fromkeys(document))
        self._documents += len(documents)
        self._fields += sum(map(len, documents))
        most = min(MOST_FIELDS, SPARSE * self._fields / max(1, self._documents))
        self._names = tuple(names) if len(names) <= most else ()
        if not self._names:
            self._learned = None
            return
        self._learned = msgspec.json.Decoder(_page_of(self._names)).decode


def _page_of(names: tuple[str, ...]) -> type[Page]:
    """The type of pages whose documents have some of these fields and no others."""
    fields = [
        (f"f{number}", msgspec.Raw, msgspec.field(name=name, default=ABSENT))
        for number, name in enumerate(names)
    ]
    document = msgspec.defstruct("Document", fields, forbid_unknown_fields=True, gc=False)
    source = ("source", document, msgspec.field(name="_source"))
    hit = msgspec.defstruct("Hit", [source, ("sort", msgspec.Raw, msgspec.Raw(b"[]"))])
    hits = msgspec.defstruct("Hits", [("hits", list[hit], [])])  # type: ignore[valid-type]
    found = ("hits", hits, msgspec.field(default_factory=hits))
    return cast("type[Page]", msgspec.defstruct("Page", [found], bases=(Page,), kw_only=True))
