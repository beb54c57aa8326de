"""`ragprof attach PID` and `--pod NS/NAME`: what a running process does, from outside."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ragprof.cli import attach_pod
from ragprof.cli.profile import check_outputs, output_options, tell
from ragprof.errors import RagprofError

if TYPE_CHECKING:
    from ragprof.profiles.model import Profile

INTERRUPTED = 130


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pid", nargs="?", type=int, metavar="PID", help="process to look into")
    parser.add_argument(
        "--seconds", type=float, default=10, metavar="S", help="how long (10); Ctrl-C ends early"
    )
    parser.add_argument("--hz", type=float, default=100, metavar="N", help="looks per second (100)")
    parser.add_argument("--dump", action="store_true", help="only the stack of every thread, now")
    parser.add_argument("--native", action="store_true", help="frames of C and C++ extensions too")
    parser.add_argument("--idle", action="store_true", help="threads that wait too")
    parser.add_argument("--gil", action="store_true", help="only the holder of the interpreter")
    parser.add_argument("--subprocesses", action="store_true", help="child processes too")
    parser.add_argument("--nonblocking", action="store_true", help="do not pause the process")
    output_options(parser)
    attach_pod.options(parser)


def run(args: argparse.Namespace) -> int:
    if args.pod or args.explain:
        return attach_pod.run(args)
    from ragprof.profiling import attaching, pyspy

    if args.pid is None:
        raise RagprofError("give the id of the process; `ps` or `pgrep -f NAME` finds it")
    check_outputs(args.out)
    options = pyspy.Options(
        args.hz, args.native, args.idle, args.gil, args.subprocesses, args.nonblocking
    )
    attaching.check(args.seconds, options)
    if args.dump or args.seconds == 0:
        profile = pyspy.dump(args.pid, options)
        if args.json or args.out:
            tell(args, profile, {"pid": args.pid}, sys.stdout)
        else:
            print(stacks_text(profile))
        return 0
    with attaching.shown_progress(False if args.json else None) as told:
        profile, cut = pyspy.record(args.pid, args.seconds, options, told)
    tell(args, profile, {"pid": args.pid, "interrupted": cut}, sys.stdout)
    return INTERRUPTED if cut else 0


def stacks_text(profile: Profile) -> str:
    """Each thread with its stack, the innermost frame first."""
    blocks = []
    labels = {name: label.values() for name, label in profile.labels.items()}
    for index, stack in enumerate(profile.sample_stacks.tolist()):
        thread = "" if profile.threads is None else str(profile.threads[index])
        head = (
            f"process {labels['process'][index]} thread {thread} "
            f"{labels['thread_name'][index]}: {labels['state'][index]}"
            f"{', has the interpreter' if labels['gil'][index] else ''}"
        )
        low, high = profile.stack_offsets[stack], profile.stack_offsets[stack + 1]
        lines = profile.stack_lines[low:high].tolist()
        path = [
            f"    {frame.function} ({frame.file}:{line})"
            for frame, line in zip(profile.stack(stack), lines, strict=True)
        ]
        blocks.append("\n".join([head, *reversed(path)]))
    return "\n\n".join(blocks) or "no thread has a Python stack"
