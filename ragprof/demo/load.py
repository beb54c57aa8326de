"""The demo's load: open arrivals, seeded, bounded in time. `python -m ragprof.demo.load`.

Arrivals are a Poisson process drawn before the first request is sent, and a request's latency
counts from the moment when it was due: a slow service cannot thin out its own load (no coordinated
omission; Tene, "How not to measure latency").
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from ragprof.demo import corpus

RATE = 5.0  # requests per second
RECENT = 20  # questions
WARM_UP = 12  # requests


@dataclass(frozen=True)
class Mix:
    """What people ask. repeated: the share of questions that were asked lately. background: of how
    many sentences before a question one is drawn. results: from these `top_k` is drawn. rate: as a
    multiple of RATE. popular: so many questions that are asked again and again, and before."""

    repeated: float = 0.25
    background: tuple[int, ...] = ()
    results: tuple[int, ...] = (3, 5, 5, 8)
    rate: float = 1.0
    popular: int = 0


MIXES = {
    "normal": Mix(),
    "brisk": Mix(rate=1.4),
    "heavy": Mix(background=(2, 3), results=(10, 12, 15)),
    "long": Mix(background=(2, 3)),
    "wide": Mix(results=(30, 40, 50)),
    "repeated": Mix(repeated=0.6),
    "new": Mix(repeated=0.0),
    "busy": Mix(rate=3.0),
    "popular": Mix(repeated=0.98, popular=8),
}

OPENINGS = (
    "What should I know about {about}?",
    "How does {about} matter for {title}?",
    "Can you explain {about}?",
    "Tell me about {about}, please.",
    "Why do people care about {about}?",
    "What do beginners get wrong about {about}?",
    "Is there a rule of thumb for {about}?",
    "I read about {about}. What is true?",
)
BACKGROUND = (
    "I have tried to find out about {about} for some weeks and read that {fact}",
    "A friend who knows {title} well told me about {about}, and said that {fact}",
    "In a course we heard about {about}, where the teacher claimed that {fact}",
)


@dataclass(frozen=True)
class Arrival:
    """One request: due at `at` seconds after the start."""

    at: float
    method: str
    path: str
    body: dict[str, Any] | None


def schedule(
    seed: int, seconds: float, mix: str = "normal", rate: float = RATE, start: float = 0.0
) -> list[Arrival]:
    """All requests of a window of `seconds`, drawn from `seed` alone."""
    if mix not in MIXES:
        raise ValueError(f"mix is one of {', '.join(MIXES)}, not {mix!r}")
    draw = random.Random(f"{seed}/{mix}/{start}")  # noqa: S311 - reproducible, not secret
    asked, subjects = MIXES[mix], corpus.subjects()
    rate *= asked.rate
    recent = popular(seed, asked)
    arrivals = []
    at = draw.expovariate(rate)
    while at < seconds:
        kind = draw.random()
        if kind < 0.06:
            slug = draw.choice(subjects).slug
            arrivals.append(Arrival(start + at, "GET", f"/api/v1/documents/{slug}", None))
        else:
            body = _question(draw, subjects, recent, asked)
            path = "/api/v1/search" if kind < 0.12 else "/api/v1/ask"
            arrivals.append(Arrival(start + at, "POST", path, body))
        at += draw.expovariate(rate)
    return arrivals


def popular(seed: int, mix: Mix) -> list[dict[str, Any]]:
    """The questions of a mix that are asked again and again: the same in every window."""
    draw = random.Random(f"{seed}/popular")  # noqa: S311 - reproducible, not secret
    found: list[dict[str, Any]] = []
    for _ in range(mix.popular):
        _question(draw, corpus.subjects(), found, Mix(repeated=0.0))
    return found


def _question(
    draw: random.Random, subjects: Sequence[corpus.Subject], recent: list[dict[str, Any]], mix: Mix
) -> dict[str, Any]:
    if recent and draw.random() < mix.repeated:
        return draw.choice(recent)
    subject = draw.choice(subjects)
    about, _ = draw.choice(subject.facts)
    text = draw.choice(OPENINGS).format(about=about, title=subject.title.lower())
    top_k = draw.choice(mix.results)
    if mix.background:
        parts = [
            draw.choice(BACKGROUND).format(
                about=other, title=subject.title.lower(), fact=_lower(fact)
            )
            for other, fact in draw.sample(subject.facts, draw.choice(mix.background))
        ]
        text = " ".join([*parts, text])
    body = {
        "question": text,
        "top_k": top_k,
        "strategy": draw.choice(("hybrid", "hybrid", "hybrid", "vector", "keyword")),
        "user_type": draw.choice(("api", "api", "dashboard")),
    }
    if not mix.popular:
        recent.append(body)
        del recent[:-RECENT]
    return body


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


async def run(
    url: str, arrivals: Sequence[Arrival], begin: float, before: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Send each request when it is due (`begin` in `time.time()` seconds), however slow it goes.

    A few requests before `begin`, those of `before` first, open connections and warm caches; they
    are not in the result. Returns per request: `at`, `path`, `status` (0: no answer),
    `milliseconds` since due.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    offset = begin - time.time() + time.perf_counter()
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as client:
        for body in [*before, *({"question": f"Warm up, {n}!"} for n in range(WARM_UP))]:
            if time.perf_counter() < offset - 0.5:
                await client.post("/api/v1/ask", json=body)
        results = await asyncio.gather(
            *(_send(client, arrival, offset + arrival.at) for arrival in arrivals)
        )
    return list(results)


async def _send(client: httpx.AsyncClient, arrival: Arrival, due: float) -> dict[str, Any]:
    await asyncio.sleep(max(0.0, due - time.perf_counter()))
    try:
        response = await client.request(arrival.method, arrival.path, json=arrival.body)
        status = response.status_code
    except httpx.HTTPError:
        status = 0
    milliseconds = (time.perf_counter() - due) * 1000
    return {
        "at": arrival.at,
        "path": arrival.path.replace(arrival.path.rsplit("/", 1)[1], "{slug}")
        if arrival.method == "GET"
        else arrival.path,
        "status": status,
        "milliseconds": round(milliseconds, 3),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run a healthy and then another window; writes the results as JSON to stdout."""
    parser = argparse.ArgumentParser(prog="python -m ragprof.demo.load")
    parser.add_argument("url")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--healthy", type=float, default=20, metavar="SECONDS")
    parser.add_argument("--faulty", type=float, default=20, metavar="SECONDS")
    parser.add_argument("--healthy-mix", choices=MIXES, default="normal")
    parser.add_argument("--mix", choices=MIXES, default="normal", help="mix of the second window")
    parser.add_argument("--begin", type=float, help="start, seconds since 1970 (default: in 2 s)")
    args = parser.parse_args(argv)
    arrivals = schedule(args.seed, args.healthy, args.healthy_mix) + schedule(
        args.seed, args.faulty, args.mix, start=args.healthy
    )
    before = popular(args.seed, MIXES[args.healthy_mix])
    results = asyncio.run(run(args.url, arrivals, args.begin or time.time() + 2, before))
    json.dump(results, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
