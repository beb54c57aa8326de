"""An ordinary RAG service on Haystack behind FastAPI: questions about a harbour's rule book.

Started as its users would, with OpenInference's instrumentation of Haystack installed:
`opentelemetry-instrument uvicorn assistant:app`. Embedder and generator are small stand-ins that
need no model and no network.
"""

import itertools
import math
import random
import threading
import time
import zlib

import deploys
from fastapi import FastAPI
from haystack import Document, Pipeline, component
from haystack.components.builders import ChatPromptBuilder
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.dataclasses import ChatMessage
from haystack.document_stores.in_memory import InMemoryDocumentStore
from pydantic import BaseModel

WORDS = [
    *("anchor", "basin", "copper", "dredge", "estuary", "ferry", "gull", "harbour", "inlet"),
    *(
        f"{a}{b}"
        for a in ("moor", "pil", "quay", "rud", "sal", "tid")
        for b in ("age", "er", "ing")
    ),
]
SIZE, RULES, FOUND, SHOWN = 48, 300, 16, 3
ACCELERATOR = threading.Lock()
TEMPLATE = [
    ChatMessage.from_user(
        "Answer from these rules.\n{% for document in documents %}{{ document.content }}\n"
        "{% endfor %}Question: {{ question }}"
    )
]


def embedded(text: str) -> list[float]:
    """Hashed words and pairs of them, as a vector of length 1."""
    words = text.split()
    vector = [0.0] * SIZE
    for term in words + [f"{a} {b}" for a, b in itertools.pairwise(words)]:
        vector[zlib.crc32(term.encode()) % SIZE] += 1.0
    length = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]


@component
class HashingTextEmbedder:
    @component.output_types(embedding=list[float])
    def run(self, text: str):
        return {"embedding": embedded(text)}


@component
class OverlapRanker:
    """The rules that share most words with the question, the best first."""

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document]):
        chosen = diverse(documents) if deploys.brought() == "diversity" else documents
        wanted = set(query.split())
        scored = sorted(chosen, key=lambda one: -len(wanted & set(one.content.split())))
        shown = FOUND if deploys.brought() == "whole_book" else SHOWN
        return {"documents": scored[:shown]}


def diverse(documents: list[Document]) -> list[Document]:
    """The mistake `diversity`: each rule is compared with all others, word by word."""
    return sorted(documents, key=lambda one: sum(common_words(one, other) for other in documents))


def common_words(one: Document, other: Document) -> int:
    """Length of the longest common subsequence of their beginnings."""
    mine, theirs = one.content.split()[:24], other.content.split()[:24]
    best = [0] * (len(theirs) + 1)
    for word in mine:
        left = 0
        for n, their in enumerate(theirs):
            left, best[n + 1] = best[n + 1], max(best[n], best[n + 1], left + (word == their))
    return best[-1]


@component
class ScriptedChatGenerator:
    """Answers with words of the prompt, at the pace of a small model on an accelerator."""

    @component.output_types(replies=list[ChatMessage])
    def run(self, messages: list[ChatMessage]):
        words = messages[-1].text.split()
        answer = self.answer_alone if deploys.brought() == "one_model" else self.answer
        reply = answer(words)
        usage = {"prompt_tokens": len(words), "completion_tokens": len(reply)}
        return {"replies": [ChatMessage.from_assistant(" ".join(reply), meta={"usage": usage})]}

    def answer(self, words: list[str]) -> list[str]:
        time.sleep(0.0002 * len(words))  # prefill
        chance, reply = random.Random(len(words)), []
        for _ in range(20):
            time.sleep(0.004)  # decode
            reply.append(chance.choice(words))
        return reply

    def answer_alone(self, words: list[str]) -> list[str]:
        """The mistake `one_model`: one answer at a time, for all requests together."""
        with ACCELERATOR:
            return self.answer(words)


def rule_book() -> InMemoryDocumentStore:
    chance = random.Random(3)
    texts = [" ".join(chance.choices(WORDS, k=45)) for _ in range(RULES)]
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    store.write_documents([Document(content=text, embedding=embedded(text)) for text in texts])
    return store


def built() -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("embedder", HashingTextEmbedder())
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(rule_book(), top_k=FOUND))
    pipeline.add_component("ranker", OverlapRanker())
    pipeline.add_component("prompt", ChatPromptBuilder(template=TEMPLATE))
    pipeline.add_component("generator", ScriptedChatGenerator())
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    pipeline.connect("retriever.documents", "ranker.documents")
    pipeline.connect("ranker.documents", "prompt.documents")
    pipeline.connect("prompt.prompt", "generator.messages")
    return pipeline


pipeline = built()
app = FastAPI()


class Question(BaseModel):
    question: str


@app.post("/ask")
def ask(asked: Question) -> dict:
    text = asked.question
    found = pipeline.run(
        {"embedder": {"text": text}, "ranker": {"query": text}, "prompt": {"question": text}}
    )
    return {"answer": found["generator"]["replies"][0].text}


@app.get("/health")
def health() -> dict:
    return {"rules": RULES}
