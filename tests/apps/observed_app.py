"""A FastAPI service observed in one line, with every kind of endpoint and of failure."""

import asyncio
import os
from collections.abc import AsyncIterator

import fastapi
from fastapi import BackgroundTasks, FastAPI, HTTPException, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from ragprof.service import instrument
from ragprof.service.logging import get_logger
from ragprof.service.metrics import BusinessMetrics, timed_stream

app = FastAPI()
tenant = FastAPI()
router = fastapi.APIRouter()
log = get_logger("observed_app")


@app.get("/items/{item}")
async def item(item: str) -> dict[str, str]:
    log.info("item_read", item=item)
    return {"item": item}


@app.get("/sync/{item}")
def sync_item(item: str) -> dict[str, str]:
    log.info("item_read", item=item)
    return {"item": item}


@app.get("/refused")
async def refused() -> None:
    raise HTTPException(409, "no")


@app.get("/returned")
async def returned() -> JSONResponse:
    return JSONResponse({}, status_code=202)


@app.get("/broken")
async def broken() -> None:
    raise RuntimeError("broken")


@app.get("/special")
async def special() -> None:
    raise LookupError("answered by the application's own handler")


@app.exception_handler(Exception)
async def handler(request: fastapi.Request, error: Exception) -> PlainTextResponse:
    return PlainTextResponse("own page", status_code=503 if isinstance(error, LookupError) else 500)


@app.get("/stream")
async def stream(tokens: int = 3, fail: bool = False) -> StreamingResponse:
    async def made() -> AsyncIterator[str]:
        for number in range(tokens):
            await asyncio.sleep(0.01)
            yield f"{number} "
        if fail:
            raise RuntimeError("in the middle")

    return StreamingResponse(timed_stream(made(), "small-model"))


@app.get("/background")
async def background(tasks: BackgroundTasks, fail: bool = False) -> dict[str, str]:
    async def later() -> None:
        await asyncio.sleep(0.3)
        if fail:
            raise RuntimeError("in the background")
        log.info("background_done")

    tasks.add_task(later)
    return {}


@app.get("/worker")
async def worker() -> dict[str, int]:
    BusinessMetrics.record_search_performed("hybrid", "small", 0.2, results=3, relevance=0.9)
    return {"pid": os.getpid()}


@app.websocket("/socket/{room}")
async def socket(websocket: WebSocket, room: str) -> None:
    if room == "closed":
        await websocket.close()
        return
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


@router.get("/ask/{question}")
async def ask(question: str) -> dict[str, str]:
    return {"question": question}


@tenant.get("/documents/{document}")
async def document(document: str) -> dict[str, str]:
    return {"document": document}


app.include_router(router, prefix="/api/v1")
app.include_router(router, prefix="/api/{version}")
app.mount("/tenants/{tenant}", tenant)
instrument(app, "observed-app", version="1.2.3", profiling=None)
