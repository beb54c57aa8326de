"""Draws docs/pictures/report.png, the top of a report, in a headless Chromium.

Usage: python docs/report_picture.py ragprof-demo/report.html
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TARGET = Path(__file__).parent / "pictures" / "report.png"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1040,1240",
    "--virtual-time-budget=4000",
)


def main(report: str) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no chromium: install Debian's package chromium")
    TARGET.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                chromium,
                *FLAGS,
                f"--user-data-dir={profile}",
                f"--screenshot={TARGET}",
                Path(report).absolute().as_uri(),
            ],
            check=True,
            capture_output=True,
        )
    print(TARGET)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "ragprof-demo/report.html")
