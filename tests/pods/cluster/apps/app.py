"""A small web service on an asyncio loop that also burns a little CPU; the target of the tests.

PORT: where it listens. WORKER_UID: pid 1 stays root and forks the worker under this user, as
servers that drop their privileges do. BALLAST_MB: memory that it holds.
"""

import asyncio
import os
import signal


def busy_hash(count):
    total = 0
    for number in range(count):
        total = (total * 31 + number) & 0xFFFFFFFF
    return total


async def handle(reader, writer):
    await reader.readline()
    body = str(busy_hash(20_000)).encode()
    writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    writer.close()


async def background_worker():
    while True:
        busy_hash(30_000)
        await asyncio.sleep(0.005)


async def main():
    server = await asyncio.start_server(handle, "0.0.0.0", int(os.environ.get("PORT", "8080")))
    print("serving as", os.getuid(), flush=True)
    worker = asyncio.create_task(background_worker())
    async with server:
        await asyncio.gather(server.serve_forever(), worker)


ballast = bytearray(b"x") * (int(os.environ.get("BALLAST_MB", "0")) << 20)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
user = int(os.environ.get("WORKER_UID", "0"))
if user:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        raise SystemExit(0)
    os.setgid(user)
    os.setuid(user)
asyncio.run(main())
