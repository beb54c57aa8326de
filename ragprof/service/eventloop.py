"""How late the event loop is: what a blocking call in a coroutine costs every other request."""

from __future__ import annotations

import asyncio

from ragprof.service.collectors import event_loop_lag

INTERVAL = 0.05


async def watch_event_loop(interval: float = INTERVAL) -> None:
    """Measure the lag of the running loop until cancelled: a timer's run minus its due time."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        event_loop_lag.observe(max(0.0, loop.time() - due))
