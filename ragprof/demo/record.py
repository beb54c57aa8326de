"""One Recording of the demo: a healthy window, then the fault."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ragprof.capturing.recorder import Recorder
from ragprof.demo import faults
from ragprof.demo.stage import Process, open_stage, play
from ragprof.demo.weights import MISSING, find_weights
from ragprof.errors import RagprofError

RECORDING = "recording.ragprof"
TRUTH = "truth.json"


def record_demo(
    out: Path,
    fault: faults.Fault,
    seed: int,
    seconds: float | None = None,
    module: tuple[Path, str] | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Record two windows into `out/recording.ragprof`; returns the truth.

    seconds: the length of each; by default what the fault needs.
    The truth goes into `out/truth.json`, beside the Recording and never into it. An earlier
    recording in `out` is replaced. Raises RagprofError when a service does not start.
    """

    def say(text: str) -> None:
        if not quiet:
            print(f"ragprof demo: {text}", file=sys.stderr, flush=True)

    if find_weights() is None:
        say(MISSING)
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / RECORDING, ignore_errors=True)
    (out / TRUTH).unlink(missing_ok=True)
    with Recorder(out / RECORDING, progress=False, echo=False) as recorder:

        def start(command: Sequence[str], env: Mapping[str, str], service: str) -> Process:
            return recorder.start(command, env=env, service=service)

        say("starting rag-reference and rag-api")
        stage = open_stage(start)
        recorder.scrape(f"{stage.api}/metrics", service="rag-api")
        recorder.scrape(f"{stage.reference}/metrics", service="rag-reference")
        played = play(stage, fault, seed, seconds or fault.seconds, module, say, recorder.mark)
    (out / TRUTH).write_text(json.dumps(played.truth, indent=1) + "\n", encoding="utf-8")
    return played.truth


def record_matrix(
    out: Path,
    names: Sequence[str],
    seeds: Sequence[int],
    seconds: float | None = None,
    quiet: bool = False,
) -> list[Path]:
    """Each fault with each seed in `out/FAULT-SEED`; a recording that exists is kept.

    Returns the folders. Detectors are then tried on all of them in seconds.
    """
    folders = []
    for seed in seeds:
        for name in names:
            folder = out / f"{name}-{seed}"
            if not (folder / TRUTH).is_file():
                record_demo(folder, faults.named(name), seed, seconds, quiet=quiet)
            folders.append(folder)
    return folders


def read_truth(folder: Path) -> dict[str, Any]:
    """The truth of a recorded folder; RagprofError when there is none."""
    path = folder / TRUTH
    try:
        truth: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        raise RagprofError(f"{path} is missing or damaged: record the demo again.") from None
    return truth
