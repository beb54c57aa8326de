"""A program without telemetry: prints, and logs its signals."""

import os
import signal
import sys
import time


def note(number: int, frame: object) -> None:
    print(f"got {signal.Signals(number).name}", flush=True)


signal.signal(signal.SIGHUP, note)
signal.signal(signal.SIGUSR1, note)
print(f"ready {os.getpid()}", flush=True)
end = time.monotonic() + float(sys.argv[1])
try:
    while time.monotonic() < end:
        time.sleep(0.02)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(7)
