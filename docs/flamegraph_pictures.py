"""Draws the pictures of docs/flamegraphs.md and docs/compare.md.

The profile is invented: a service whose reranker pads its batches, against its baseline. Static
pictures are written as SVG; views of pages are taken in a headless Chromium.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from ragprof import plots
from ragprof.flamegraph import Speedscope, html, svg
from ragprof.flamegraph.comparison import html_table
from ragprof.flamegraph.source import SourceView
from ragprof.flamegraph.terminal import tree
from ragprof.profiles.compare import compare
from ragprof.profiles.model import Frame, Profile, ProfileBuilder

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from chromium import started

DOCS = Path(__file__).parent
PICTURES = DOCS / "pictures"
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


def frame(name: str) -> Frame:
    return Frame(name, name.split(":")[0], "", 0, origin(name))


def profile(column: int) -> Profile:
    builder = ProfileBuilder(name=("", "slow requests", "baseline")[column])
    for row in MILLISECONDS:
        names: list[str] = row[0]
        frames = [builder.frame(frame(name)) for name in names]
        builder.sample(builder.stack(frames), row[column] * 1e6)
    return builder.build()


def over_time() -> Profile:
    """Twenty seconds of requests on two threads, with a burst of reranking every fourth second."""
    random = np.random.default_rng(3)
    builder = ProfileBuilder(name="rag-api")
    stacks = [
        builder.stack([builder.frame(frame(name)) for name in row[0]]) for row in MILLISECONDS
    ]
    slow = np.array([row[1] for row in MILLISECONDS])
    calm = np.array([row[2] for row in MILLISECONDS])
    start = 1_790_000_000 * 10**9
    for at in range(0, 20_000, 10):
        burst = at % 4_000 < 700
        for thread in (1, 2):
            if not burst and random.random() < 0.75:
                continue
            odds = slow if burst else calm
            stack = stacks[random.choice(len(stacks), p=odds / odds.sum())]
            builder.sample(stack, 1e7, time=start + at * 1_000_000, thread=thread)
    return builder.build()


def with_lines() -> Profile:
    """A profile of this file's own `over_time`, as if its lines had been sampled."""
    text = Path(__file__).read_text(encoding="utf-8").split("\n")
    first = next(at for at, line in enumerate(text, 1) if line.startswith("def over_time"))
    builder = ProfileBuilder(name="pictures")
    shown = builder.frame(Frame("over_time", "pictures", "docs/flamegraph_pictures.py", first))
    for offset, weight in ((10, 4e6), (12, 9e6), (13, 3e6), (16, 61e6), (17, 23e6)):
        builder.sample(builder.stack([shown], [first + offset]), weight)
    return builder.build()


SANDWICH = (
    "[...document.querySelectorAll('button[data-frame]')]"
    ".find((button) => button.textContent === 'rag.minilm:encode').click()"
)
CHOOSE = (
    "for (const [id, value] of Object.entries(arguments[0])) {"
    "const e = document.getElementById(id); e.value = value;"
    "e.dispatchEvent(new Event(e.tagName === 'INPUT' ? 'input' : 'change')); }"
)


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    slow, baseline, timed = profile(1), profile(2), over_time()
    title = "rag-api: slow requests against baseline"
    (DOCS / "flamegraph.svg").write_text(
        svg(slow, baseline, width=1000, title=title), encoding="utf-8"
    )
    (PICTURES / "flamegraph-both.svg").write_text(
        svg(slow, baseline, width=1000, title=title, widths="both", normalized=True),
        encoding="utf-8",
    )
    (PICTURES / "heatmap.svg").write_text(plots.heatmap(timed).svg(700), encoding="utf-8")
    console = Console(record=True, width=110, file=io.StringIO(), force_terminal=True)
    console.print(tree(slow, baseline))
    (PICTURES / "flamegraph-tree.svg").write_text(
        console.export_svg(title="ragprof flamegraph slow.pb.gz --against calm.pb.gz"),
        encoding="utf-8",
    )
    head = '<!DOCTYPE html><meta charset="utf-8"><body style="margin:12px">'
    pages = {
        "page": (html(timed), {}, ""),
        "search": (html(slow), {"search": "minilm|pad"}, ""),
        "inverted": (html(slow), {"view": "callers"}, ""),
        "sandwich": (html(slow), {}, SANDWICH),
        "time": (html(timed), {"view": "time"}, ""),
        "self": (html(slow), {"colour": "self", "order": "weight"}, ""),
        "heat": (html(timed), {}, "document.getElementById('heatmap').click()"),
        "difference": (html(slow, baseline, title=title), {"width": "both"}, ""),
        "dark": (html(slow), {}, "document.getElementById('theme').click()"),
        "speedscope": (Speedscope(timed).html(), {}, ""),
        "lines": (head + SourceView(with_lines()).html(), {}, ""),
        "compare": (head + html_table(compare(baseline, slow)), {}, ""),
    }
    with tempfile.TemporaryDirectory() as temporary, started(Path(temporary) / "p") as browser:
        browser.set_window_size(1000, 640)
        for name, (page, choices, script) in pages.items():
            path = Path(temporary) / f"{name}.html"
            path.write_text(page, encoding="utf-8")
            browser.get(path.as_uri())
            time.sleep(4 if name == "speedscope" else 0.5)
            browser.execute_script(CHOOSE, choices)
            if script:
                browser.execute_script(script)
            time.sleep(0.5)
            browser.save_screenshot(str(PICTURES / f"flamegraph-{name}.png"))
            print(PICTURES / f"flamegraph-{name}.png")


if __name__ == "__main__":
    main()
