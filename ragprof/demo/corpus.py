"""The documents of the demo, composed deterministically from the self-written material in `data/`.

Most chunks are short, some are long: the length skew of real corpora, without which a reranker that
pads its batch would cost nothing.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ragprof.errors import RagprofError

MATERIAL = "corpus/subjects.toml"


@dataclass(frozen=True)
class Chunk:
    """One passage: `kind` is fact, answer or digest."""

    kind: str
    text: str


@dataclass(frozen=True)
class Document:
    """One document with its passages."""

    slug: str
    title: str
    author: str
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Subject:
    """What a person wrote about one subject; `facts` are (what it is about, the sentence)."""

    slug: str
    title: str
    author: str
    facts: tuple[tuple[str, str], ...]


def data_folder() -> Path:
    """The folder `data`: inside the installed package, else beside it in a clone."""
    installed = Path(str(files("ragprof"))) / "data"
    return installed if installed.is_dir() else installed.parent.parent / "data"


def subjects() -> list[Subject]:
    """The material, in the order of the file."""
    path = data_folder() / MATERIAL
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RagprofError(
            f"{path} is missing, so the demo has no documents: install ragprof anew."
        ) from None
    return [
        Subject(slug, entry["title"], entry["author"], tuple((a, f) for a, f in entry["facts"]))
        for slug, entry in raw.items()
    ]


def documents() -> list[Document]:
    """All documents: one per subject."""
    everything = subjects()
    return [_document(index, everything) for index in range(len(everything))]


def _document(index: int, everything: list[Subject]) -> Document:
    subject = everything[index]
    facts = [Chunk("fact", f"{subject.title}. {text}") for _, text in subject.facts]
    answers = [
        Chunk("answer", f"What should one know about {about}? {text}")
        for about, text in subject.facts
    ]
    # The digest quotes two neighbours too: one long passage per document, near the model's limit.
    neighbours = [everything[(index + step) % len(everything)] for step in (0, 1, 2)]
    digest = " ".join(
        f"{other.title}, by {other.author}. " + " ".join(text for _, text in other.facts)
        for other in neighbours
    )
    chunks = (*facts, *answers, Chunk("digest", f"{subject.title}, a digest. {digest}"))
    return Document(subject.slug, subject.title, subject.author, chunks)


def fingerprint(all_documents: list[Document]) -> str:
    """16 hex digits that change when any text changes."""
    digest = hashlib.blake2b(digest_size=8)
    for document in all_documents:
        for chunk in document.chunks:
            digest.update(f"{document.slug}\0{chunk.text}\0".encode())
    return digest.hexdigest()
