"""An ordinary FastAPI application that knows nothing of ragprof: a small book shop.

Started as its users would: `opentelemetry-instrument uvicorn bookshop:app`. When the file named by
`BOOKSHOP_FAULT` exists, its text names the mistake that the next deploy brought.
"""

import asyncio
import json
import os
import pathlib
import threading

from fastapi import FastAPI

app = FastAPI()
FAULT = pathlib.Path(os.environ.get("BOOKSHOP_FAULT", "fault.txt"))
CATALOGUE = json.dumps(
    [
        {"id": n, "title": f"Volume {n}", "words": [f"w{(n * 7 + k) % 900}" for k in range(30)]}
        for n in range(2500)
    ]
)
BOOKS = json.loads(CATALOGUE)
PRICES = {book["id"]: 5 + book["id"] % 40 for book in BOOKS}
TILL = threading.Lock()


def fault() -> str:
    return FAULT.read_text().strip() if FAULT.exists() else ""


def load_books() -> list[dict]:
    """The mistake `reparse`: the catalogue is parsed anew for each request."""
    return [book for _ in range(4) for book in json.loads(CATALOGUE)][-len(BOOKS) :]


def matching(word: str) -> list[dict]:
    books = load_books() if fault() == "reparse" else BOOKS
    return [book for book in books if word in book["words"]][:20]


def charge(total: int) -> int:
    """The mistake `till`: every sale holds the one till while the receipt is printed."""
    if fault() == "till":
        with TILL:
            threading.Event().wait(0.08)
    return total


@app.get("/search/{word}")
async def search(word: str) -> dict:
    found = matching(word)
    await asyncio.sleep(0.01)  # the recommendations service
    return {"books": [book["id"] for book in found]}


@app.get("/buy/{book}")
def buy(book: int, copies: int = 1) -> dict:
    return {"total": charge(PRICES[book % len(PRICES)] * copies)}
