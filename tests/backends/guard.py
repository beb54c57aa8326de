"""Runs one server for as long as somebody uses it: `guard.py FOLDER KEEP|REMOVE COMMAND…`.

Each user holds a shared lock on FOLDER/users. The kernel gives it back when a user ends, however
it ends, so the server never outlives the tests. REMOVE deletes the folder afterwards.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading

STOPS = 20.0  # seconds that a server has to end by itself


def main() -> None:
    folder, after, *command = sys.argv[1:]
    with open(os.path.join(folder, "users"), "rb") as users:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        unused = threading.Event()

        def end_with_the_server() -> None:
            code = server.wait()
            if not unused.is_set():
                os._exit(1 if code else 0)

        threading.Thread(target=end_with_the_server, daemon=True).start()
        fcntl.flock(users, fcntl.LOCK_EX)
        unused.set()
        server.terminate()
        try:
            server.wait(STOPS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        if after == "REMOVE":
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)


if __name__ == "__main__":
    main()
