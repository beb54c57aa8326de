"""An ordinary FastAPI application that knows nothing of ragprof: a small book shop.

Started as its users would: `opentelemetry-instrument uvicorn bookshop:app`.
"""

import asyncio
import json
import threading

import deploys
from fastapi import FastAPI

app = FastAPI()
CATALOGUE = json.dumps(
    [
        {"id": n, "title": f"Volume {n}", "words": [f"w{(n * 7 + k) % 900}" for k in range(30)]}
        for n in range(2500)
    ]
)
BOOKS = json.loads(CATALOGUE)
PRICES = {book["id"]: 5 + book["id"] % 40 for book in BOOKS}
TILL = threading.Lock()


def load_books() -> list[dict]:
    """The mistake `reparse`: the catalogue is parsed anew for each request."""
    return [book for _ in range(4) for book in json.loads(CATALOGUE)][-len(BOOKS) :]


def matching(word: str) -> list[dict]:
    books = load_books() if deploys.brought() == "reparse" else BOOKS
    return [book for book in books if word in book["words"]][:20]


def charge(total: int) -> int:
    """The mistake `till`: every sale holds the one till while the receipt is printed."""
    if deploys.brought() == "till":
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
