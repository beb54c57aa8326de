"""What ragprof finds in a service and in faults that it has never seen, as a Markdown table.

python tests/foreign/measure.py >> docs/foreign.md
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

FOLDER = Path(__file__).parent
BIN = Path(sys.prefix) / "bin"
SHOP_FAULTS = {
    "reparse": "the catalogue is parsed anew for each request, in the event loop",
    "till": "every sale holds one lock for 80 ms",
    "none": "nothing changes",
}
OWN_FAULTS = {
    "near_duplicates": "all pairs of hits are compared by text distance",
    "reload_under_lock": "each question waits for a lock that a reload holds",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_answering(url: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def record_shop(fault: str, folder: Path, seconds: float = 15) -> Path:
    """Record the book shop before and after its bad deploy; returns the Recording."""
    switch, out, port = folder / "fault.txt", folder / "shop.ragprof", free_port()
    url = f"http://127.0.0.1:{port}"
    record = [BIN / "ragprof", "record", "--out", out, "--service", "bookshop", "--"]
    serve = ["uvicorn", "bookshop:app", "--port", port, "--app-dir", FOLDER, "--no-access-log"]
    recorder = subprocess.Popen(
        [str(word) for word in (*record, BIN / "opentelemetry-instrument", *serve)],
        cwd=folder,
        env={
            **os.environ,
            "BOOKSHOP_FAULT": str(switch),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_answering(f"{url}/buy/1")
        for seed in (1, 2):
            visit = [sys.executable, FOLDER / "visitors.py", url, seconds, seed]
            subprocess.run(
                [str(word) for word in visit], check=True, timeout=120, stdout=subprocess.DEVNULL
            )
            switch.write_text(fault)
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.wait(timeout=60)
    return out


def investigate(recording: Path, folder: Path) -> dict:
    subprocess.run(
        [str(BIN / "ragprof"), "investigate", str(recording), "--out", str(folder)],
        check=True,
        timeout=120,
        stdout=subprocess.DEVNULL,
    )
    return json.loads((folder / "findings.json").read_text())


def demo_with(fault: str, folder: Path) -> dict:
    """The demo with a fault of somebody else's file."""
    subprocess.run(
        [
            str(BIN / "ragprof"),
            "demo",
            "--out",
            str(folder),
            "--fault-module",
            f"{FOLDER / 'own_faults.py'}:{fault}",
        ],
        check=True,
        timeout=300,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return json.loads((folder / "findings.json").read_text())


def row(service: str, fault: str, meaning: str, found: dict) -> str:
    first = found["findings"][0] if found["findings"] else {}
    cells = (
        service,
        f"`{fault}`: {meaning}",
        first.get("kind", found["verdict"].replace("_", " ")),
        first.get("stage", ""),
        f"`{first['function']}`" if first.get("function") else "",
        f"{first['added_ms']:.0f}" if first else "",
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    print("| service | fault | first finding | stage | function | added ms |")
    print("|---|---|---|---|---|---|")
    for fault, meaning in SHOP_FAULTS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            found = investigate(record_shop(fault, folder), folder / "found")
        print(row("bookshop", fault, meaning, found), flush=True)
    for fault, meaning in OWN_FAULTS.items():
        with tempfile.TemporaryDirectory() as name:
            print(row("demo", fault, meaning, demo_with(fault, Path(name))), flush=True)


if __name__ == "__main__":
    main()
