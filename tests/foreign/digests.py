"""An ordinary asyncio worker without HTTP: it reads letters from a queue and files digests of them.

Started as its users would: `python digests.py QUEUE.db`, after `OTEL_EXPORTER_OTLP_ENDPOINT` and
`OTEL_SERVICE_NAME` were set. The queue is a table of SQLite; four tasks work on it.
"""

import asyncio
import collections
import json
import re
import signal
import sqlite3
import sys
import time

import deploys
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

TASKS = 4
LEDGER = asyncio.Lock()
tracer = trace.get_tracer("digests")


def claim(queue: str) -> list[tuple[int, str, str]]:
    """Letters that nobody works on yet, the oldest first."""
    with sqlite3.connect(queue, timeout=30) as table:
        return table.execute(
            "UPDATE letters SET taken = 1 WHERE id IN "
            "(SELECT id FROM letters WHERE taken = 0 ORDER BY id LIMIT 8) "
            "RETURNING id, headers, body"
        ).fetchall()


def store(queue: str, letter: int, digest: str) -> None:
    with sqlite3.connect(queue, timeout=30) as table:
        table.execute("UPDATE letters SET digest = ? WHERE id = ?", (digest, letter))


async def sender_of(letter: dict) -> str:
    """The mistake `blocking_client`: the address book is asked with a client not for asyncio."""
    if deploys.brought() == "blocking_client":
        time.sleep(0.05)
    else:
        await asyncio.sleep(0.02)
    return f"sender {letter['sender']}"


def sentences(text: str) -> list[set[str]]:
    return [set(re.findall(r"\w+", part)) for part in text.split(".")]


def digest(text: str) -> str:
    """The mistake `near_duplicates`: each sentence is compared with all others."""
    parts = sentences(text)
    if deploys.brought() == "near_duplicates":
        parts = [part for part in parts if not repeats(part, parts)]
    counts = collections.Counter(word for part in parts for word in part)
    return " ".join(word for word, _ in counts.most_common(12))


def repeats(part: set[str], others: list[set[str]]) -> bool:
    likeness = [len(part & other) / (len(part | other) or 1) for other in others]
    return sum(like > 0.9 for like in likeness) > len(others)


async def file_away(queue: str, letter: int, text: str) -> None:
    """The mistake `one_ledger`: each digest is entered in a ledger, one task at a time."""
    if deploys.brought() == "one_ledger":
        async with LEDGER:
            await asyncio.sleep(0.09)
    await asyncio.to_thread(store, queue, letter, text)


async def work_on(queue: str, letter: int, headers: str, body: str) -> None:
    attributes = {
        "messaging.system": "sqlite",
        "messaging.operation.type": "process",
        "messaging.destination.name": "letters",
    }
    with tracer.start_as_current_span(
        "process letters",
        propagate.extract(json.loads(headers)),
        trace.SpanKind.CONSUMER,
        attributes,
    ):
        content = json.loads(body)
        with tracer.start_as_current_span("ask address book", kind=trace.SpanKind.CLIENT):
            sender = await sender_of(content)
        with tracer.start_as_current_span("digest"):
            text = digest(content["text"])
        with tracer.start_as_current_span("file"):
            await file_away(queue, letter, f"{sender}: {text}")


async def take_turns(queue: str, waiting: asyncio.Queue) -> None:
    while True:
        letter = await waiting.get()
        try:
            await work_on(queue, *letter)
        finally:
            waiting.task_done()


async def main(queue: str) -> None:
    waiting: asyncio.Queue = asyncio.Queue(maxsize=TASKS)
    tasks = [asyncio.create_task(take_turns(queue, waiting)) for _ in range(TASKS)]
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stopped.set)
    while not stopped.is_set():
        for letter in await asyncio.to_thread(claim, queue):
            await waiting.put(letter)
        await asyncio.sleep(0.02)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    asyncio.run(main(sys.argv[1]))
    provider.shutdown()
