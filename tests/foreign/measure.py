"""What ragprof finds in services and in faults that it has never seen, as a Markdown page.

python tests/foreign/measure.py [--only SERVICE[:FAULT],…] [--seed N] [--out FOLDER]

The services are those of services.py; `demo` is ragprof's own demo with the faults of
own_faults.py. With --out the recordings and the investigations of them are kept there; those that
are there already are investigated again, not recorded again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema

FOLDER = Path(__file__).parent
SCHEMA = FOLDER.parent.parent / "ragprof" / "investigation" / "findings.schema.json"
sys.path.insert(0, str(FOLDER.parent))

from foreign.services import BIN, NOTHING, SERVICES, Mistake, record  # noqa: E402

OWN_FAULTS = {
    "near_duplicates": Mistake(
        "all pairs of hits are compared by text distance",
        ("retrieve",),
        ("cpu",),
        (
            "own_faults:near_duplicates.<locals>.is_near_duplicate",
            "own_faults:near_duplicates.<locals>.search_without_near_duplicates",
        ),
    ),
    "reload_under_lock": Mistake(
        "each question waits for a lock that a reload holds",
        ("embed",),
        ("lock_wait",),
        ("own_faults:reload_under_lock.<locals>.embed_with_current_model",),
    ),
}
CASES = [
    *((name, fault) for name, service in SERVICES.items() for fault in service.mistakes),
    *(("demo", fault) for fault in OWN_FAULTS),
]
HEAD = """\
| service | fault | right | first finding | stage | function or resource | added ms |
|---|---|---|---|---|---|---|"""


def findings(folder: Path) -> dict:
    """What an investigation left in a folder, checked against the schema."""
    found: dict = json.loads((folder / "findings.json").read_text())
    jsonschema.validate(found, json.loads(SCHEMA.read_text()))
    return found


def investigate(recording: Path, folder: Path) -> dict:
    subprocess.run(
        [str(BIN / "ragprof"), "investigate", str(recording), "--out", str(folder)],
        check=True,
        timeout=300,
        stdout=subprocess.DEVNULL,
    )
    return findings(folder)


def demo_with(fault: str, folder: Path, seed: int) -> Path:
    """The demo with a fault of somebody else's file; returns the Recording."""
    recording = folder / "recording.ragprof"
    module = f"{FOLDER / 'own_faults.py'}:{fault}"
    subprocess.run(
        [str(BIN / "ragprof"), "demo", "--seed", str(seed), "--out", str(folder),
         "--fault-module", module],
        check=True,
        timeout=400,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return recording


def measured(name: str, fault: str, folder: Path, seed: int) -> dict:
    """Findings of a service with a fault, recorded in `folder` unless it is there already."""
    service = name if name in SERVICES else "recording"
    recording = folder / f"{service}.ragprof"
    if not recording.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if name == "demo":
            demo_with(fault, folder, seed)
        else:
            record(name, fault, folder, seed=seed)
    return investigate(recording, folder / "found")


def tried(name: str, fault: str, folder: Path) -> Path | None:
    """The folder of the first of two attempts in which the fault is named first, else None.

    Another load on the machine spoils a recording of half a minute; it seldom spoils two.
    """
    for seed in (1, 11):
        found = measured(name, fault, folder / str(seed), seed)
        print(found["summary"], found["findings"][:1])
        if SERVICES[name].mistakes[fault].is_named(found):
            return folder / str(seed)
    return None


def row(name: str, fault: str, mistake: Mistake, found: dict) -> str:
    first = found["findings"][0] if found["findings"] else {}
    place = first.get("function") or first.get("resource", "")
    cells = (
        name,
        f"`{fault}`: {mistake.meaning}",
        "yes" if mistake.is_named(found) else "no",
        first.get("kind", found["verdict"].replace("_", " ")),
        first.get("stage", ""),
        f"`{place}`" if place else "",
        f"{first['added_ms']:.0f}" if first else "",
    )
    return "| " + " | ".join(cells) + " |"


def chosen(only: str) -> list[tuple[str, str]]:
    """The cases that `--only` names, in the order of the table."""
    wanted = [tuple(word.partition(":")[::2]) for word in only.split(",") if word]
    for name, fault in wanted:
        if not any(name == one and fault in ("", other) for one, other in CASES):
            raise SystemExit(f"--only {name}:{fault} is none of {CASES}")
    return [
        (name, fault)
        for name, fault in CASES
        if not wanted or (name, fault) in wanted or (name, "") in wanted
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="services, or SERVICE:FAULT, with commas")
    parser.add_argument("--seed", type=int, default=1, help="of the load before the deploy")
    parser.add_argument("--out", type=Path, help="folder that keeps the recordings")
    options = parser.parse_args()
    print(HEAD, flush=True)
    right = []
    cases = chosen(options.only)
    for name, fault in cases:
        mistake = (SERVICES[name].mistakes if name in SERVICES else OWN_FAULTS)[fault]
        with tempfile.TemporaryDirectory() as temporary:
            folder = (options.out or Path(temporary)).resolve() / f"{name}-{fault}"
            found = measured(name, fault, folder, options.seed)
        print(row(name, fault, mistake, found), flush=True)
        right.append((mistake is NOTHING, mistake.is_named(found)))
    faults = [each for healthy, each in right if not healthy]
    healthy = [each for healthy, each in right if healthy]
    print(
        f"\n{sum(faults)} of {len(faults)} faults were named first, and {sum(healthy)} of "
        f"{len(healthy)} recordings without one gave no cause. Seed {options.seed}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}."
    )


if __name__ == "__main__":
    main()
