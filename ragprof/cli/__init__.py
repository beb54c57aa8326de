"""The command line: one thin module per command, imported only when its command is called."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

import ragprof
from ragprof.errors import RagprofError

# Exit codes, documented in docs/commands.md.
OK, FAILED, USAGE, GATE, TOO_LITTLE_DATA = 0, 1, 2, 3, 4

# Command -> one line of help. Module `ragprof.cli.NAME` has `arguments(parser)` and `run(args)`.
COMMANDS = {
    "demo": "record a RAG service with a fault, find the fault, write the report",
    "record": "record a service: spans, logs, metrics, stacks",
    "capture": "fetch a window of a running system: Prometheus, Elasticsearch, Jaeger, ...",
    "mark": "note a change (a deploy, a switch) in the recording that runs",
    "investigate": "find out why requests were slow",
    "report": "run a notebook headless: HTML, status, schedule",
    "lab": "open a recording in JupyterLab",
    "monitoring": "write alert rules, dashboards, log shipping and objectives for the cluster",
    "slo": "error budgets, burn rates and the state of the objectives",
    "alerts": "replay alert rules on history: what would have fired, and was it right",
    "doctor": "run the checklists: before and after a deployment, and the reviews",
    "watch": "take alerts from Alertmanager and investigate before anybody wakes",
    "profile": "run a program and see where its time goes",
    "attach": "see what a running process or pod does, from outside",
    "flamegraph": "draw a profile or a recording: SVG, HTML, speedscope, or a tree of text",
    "compare": "say what changed between profiles or recordings; fail a build when it got slower",
    "recording": "describe, verify, slice, merge or redact a recording, or query it with SQL",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code (`record` returns that of the child)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    name = next((word for word in argv if not word.startswith("-")), "")
    try:
        code = _run(argv, name)
        sys.stdout.flush()  # a reader that left shows here, not while Python ends
        return code
    except BrokenPipeError:
        # Whoever read the output has left (`| head -1`): the interpreter must not flush it again.
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 128 + 13  # as a shell tells of SIGPIPE
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("ragprof"):
            raise
        extra = "demo" if name == "demo" else "lab"
        print(
            f"ragprof {name} needs {error.name!r}, which is not installed: "
            f'pip install "ragprof[{extra}]"',
            file=sys.stderr,
        )
        return FAILED
    except RagprofError as error:
        print(f"ragprof {name}: {error}", file=sys.stderr)
        return FAILED


def _run(argv: list[str], name: str) -> int:
    parser = argparse.ArgumentParser(
        prog="ragprof", description="Why was it slow? From a latency alarm to the line of Python."
    )
    parser.add_argument("--version", action="version", version=f"ragprof {ragprof.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command, help_ in COMMANDS.items():
        sub = commands.add_parser(command, help=help_, description=help_[0].upper() + help_[1:])
        if command == name:  # the other commands' modules stay unloaded: --help is fast
            module = importlib.import_module(f"ragprof.cli.{command}")
            module.arguments(sub)
            sub.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    return int(args.run(args))
