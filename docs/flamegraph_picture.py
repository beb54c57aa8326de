"""Draws docs/flamegraph.svg: an invented profile of a slow reranker against its baseline."""

from __future__ import annotations

from pathlib import Path

from ragprof.flamegraph import svg
from ragprof.profiles.model import Frame, Profile, ProfileBuilder

LOOP = ["asyncio.runners:run", "asyncio.base_events:run_once", "starlette.routing:Router.app"]
ANSWER = [*LOOP, "rag.api:answer"]
RERANK = [*ANSWER, "rag.rerank:score_batch"]
MILLISECONDS = [  # stack, slow, baseline
    ([*RERANK, "rag.rerank:pad"], 31.0, 2.0),
    ([*RERANK, "rag.minilm:encode", "rag.minilm:attention"], 62.0, 21.0),
    ([*RERANK, "rag.minilm:encode", "rag.minilm:feed_forward"], 55.0, 19.0),
    ([*ANSWER, "rag.embed:query", "rag.minilm:encode"], 13.0, 12.5),
    ([*ANSWER, "rag.search:bm25"], 11.0, 10.8),
    ([*ANSWER, "rag.search:vectors", "numpy:matmul"], 8.0, 8.1),
    ([*ANSWER, "rag.store:documents", "sqlalchemy.orm:Query.all", "sqlite3:execute"], 7.0, 16.0),
    (LOOP, 2.0, 2.0),
]


def origin(function: str) -> str:
    package = function.split(".")[0].split(":")[0]
    return {"rag": "app", "asyncio": "stdlib", "sqlite3": "stdlib"}.get(package, "library")


def profile(column: int) -> Profile:
    builder = ProfileBuilder(name="rag-api")
    for row in MILLISECONDS:
        names: list[str] = row[0]
        frames = [
            builder.frame(Frame(name, name.split(":")[0], "", 0, origin(name))) for name in names
        ]
        builder.sample(builder.stack(frames), row[column] * 1e6)
    return builder.build()


if __name__ == "__main__":
    picture = svg(
        profile(1), profile(2), width=1000, title="rag-api: slow requests against baseline"
    )
    Path(__file__).with_name("flamegraph.svg").write_text(picture, encoding="utf-8")
