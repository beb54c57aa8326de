"""The database: SQLite through the SQLAlchemy ORM and a connection pool."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import sqlalchemy
from sqlalchemy import Engine, ForeignKey, QueuePool, event, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
)

from ragprof.demo import corpus
from ragprof.service import metrics

P = ParamSpec("P")
R = TypeVar("R")

DATABASE_NAME = "rag"
POOL_NAME = "rag"
POOL_SIZE = 8
WAITING_THREADS = 64


class Base(DeclarativeBase):
    """The tables of rag-api."""


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Document(Base):
    __tablename__ = "documents"
    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(unique=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author] = relationship()
    chunks: Mapped[list[Chunk]] = relationship(back_populates="document")


class Chunk(Base):
    __tablename__ = "chunks"
    id: Mapped[int] = mapped_column(primary_key=True)  # its number in the index
    document_id: Mapped[int] = mapped_column(ForeignKey("documents.id"), index=True)
    kind: Mapped[str]
    text: Mapped[str]
    document: Mapped[Document] = relationship(back_populates="chunks")
    tags: Mapped[list[Tag]] = relationship()


class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    chunk_id: Mapped[int] = mapped_column(ForeignKey("chunks.id"), index=True)
    name: Mapped[str]


class Query(Base):
    __tablename__ = "queries"
    id: Mapped[int] = mapped_column(primary_key=True)
    request_id: Mapped[str]
    question: Mapped[str]
    results: Mapped[int]


@dataclass(frozen=True)
class Passage:
    """A chunk with what an answer cites of it."""

    chunk: int
    text: str
    title: str
    author: str
    slug: str
    tags: tuple[str, ...]


class Pool:
    """The seam to the connection pool: `resize` gives the running service another one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.engine = self._connect(POOL_SIZE, 0)

    def resize(self, size: int, max_overflow: int = 0) -> None:
        """Use a new pool from now on; connections of the old one close as they come back."""
        old, self.engine = self.engine, self._connect(size, max_overflow)
        old.dispose()

    def _connect(self, size: int, max_overflow: int) -> Engine:
        # Through the module: tracing replaces the function there after this import.
        engine = sqlalchemy.create_engine(
            f"sqlite:///{DATABASE_NAME}",  # what spans show; the file has another name each start
            creator=self._open,
            poolclass=QueuePool,
            pool_size=size,
            max_overflow=max_overflow,
            pool_timeout=30,
        )
        event.listen(engine, "checkout", self._count)
        event.listen(engine, "checkin", self._count)
        metrics.database_connection_pool_size.labels(pool_name=POOL_NAME).set(size)
        metrics.database_connection_pool_max.labels(pool_name=POOL_NAME).set(size + max_overflow)
        return engine

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    def _count(self, *_: Any) -> None:
        metrics.database_connection_pool_in_use.labels(pool_name=POOL_NAME).set(self.in_use)

    @property
    def in_use(self) -> int:
        """Connections that are checked out."""
        pool = self.engine.pool
        return pool.checkedout() if isinstance(pool, QueuePool) else 0


class Database:
    """Queries of the service. They run in own threads, for the driver is synchronous.

    Waiting for a connection has its own threads: requests that wait must never occupy those that
    the holder of the connection needs to go on, or all would wait for each other.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.threads = ThreadPoolExecutor(POOL_SIZE, thread_name_prefix="database")
        self.waiting = ThreadPoolExecutor(WAITING_THREADS, thread_name_prefix="connection")

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a synchronous function in a database thread, in the caller's context."""
        return await self._run_in(self.threads, functools.partial(function, *args, **kwargs))

    async def _run_in(self, threads: ThreadPoolExecutor, function: Callable[[], R]) -> R:
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(threads, context.run, function)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A session for one request: its connection is held until the request is answered."""
        session = Session(self.pool.engine)
        try:
            await self._run_in(self.waiting, session.connection)
            yield session
        finally:
            await self.run(session.close)

    async def passages(self, session: Session, chunks: Sequence[int]) -> list[Passage]:
        """The passages of some chunks, in the order asked for, with two statements in all."""
        return await self.run(load_passages, session, chunks)

    async def document(self, session: Session, slug: str) -> dict[str, Any] | None:
        """One document with the number of its chunks; None when there is no such document."""
        return await self.run(load_document, session, slug)

    async def add_query(self, request_id: str, question: str, results: int) -> None:
        """Remember that a question was asked."""
        await self.run(save_query, self.pool.engine, request_id, question, results)

    def close(self) -> None:
        """End the threads and close the connections."""
        self.threads.shutdown()
        self.waiting.shutdown()
        self.pool.engine.dispose()


def load_passages(session: Session, chunks: Sequence[int]) -> list[Passage]:
    """All passages at once: one join, and one statement for the tags."""
    statement = (
        select(Chunk)
        .where(Chunk.id.in_(chunks))
        .options(joinedload(Chunk.document).joinedload(Document.author), selectinload(Chunk.tags))
    )
    found = {chunk.id: passage(chunk) for chunk in session.scalars(statement)}
    return [found[chunk] for chunk in chunks if chunk in found]


def passage(chunk: Chunk) -> Passage:
    """What an answer needs of a chunk and its relations."""
    document = chunk.document
    return Passage(
        chunk.id,
        chunk.text,
        document.title,
        document.author.name,
        document.slug,
        tuple(tag.name for tag in chunk.tags),
    )


def load_document(session: Session, slug: str) -> dict[str, Any] | None:
    statement = (
        select(Document)
        .where(Document.slug == slug)
        .options(joinedload(Document.author), selectinload(Document.chunks))
    )
    document = session.scalars(statement).first()
    if document is None:
        return None
    return {
        "slug": document.slug,
        "title": document.title,
        "author": document.author.name,
        "chunks": len(document.chunks),
    }


def save_query(engine: Engine, request_id: str, question: str, results: int) -> None:
    with Session(engine) as session:
        session.add(Query(request_id=request_id, question=question, results=results))
        session.commit()


def fill(engine: Engine, documents: Sequence[corpus.Document]) -> list[str]:
    """Create the tables and put the corpus in; returns the texts of the chunks in index order."""
    Base.metadata.create_all(engine)
    texts: list[str] = []
    with Session(engine) as session:
        for source in documents:
            document = Document(
                slug=source.slug, title=source.title, author=Author(name=source.author)
            )
            session.add(document)
            for chunk in source.chunks:
                tags = [Tag(name=chunk.kind), Tag(name=source.slug)]
                session.add(
                    Chunk(
                        id=len(texts),
                        document=document,
                        kind=chunk.kind,
                        text=chunk.text,
                        tags=tags,
                    )
                )
                texts.append(chunk.text)
        session.commit()
    return texts
