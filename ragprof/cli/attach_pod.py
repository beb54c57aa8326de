"""`ragprof attach --pod NS/NAME`: the options, and what a user sees of the ladder."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ragprof.cli.profile import check_outputs, tell
from ragprof.errors import RagprofError

RUNGS = ("exec", "endpoint", "ephemeral", "job")  # a test compares it with the ladder's
INTERRUPTED = 130


def options(parser: argparse.ArgumentParser) -> None:
    """--pod and what belongs to it."""
    pods = parser.add_argument_group("a Kubernetes pod, tried rung by rung")
    pods.add_argument("--pod", metavar="NS/NAME", help="PID is then one in the container, if given")
    pods.add_argument("--container", metavar="C", help="needed where the pod has several")
    pods.add_argument(
        "--explain", action="store_true", help="print what to allow for each rung, as YAML"
    )
    pods.add_argument(
        "--rung", action="append", choices=RUNGS, help="only this one; may be repeated"
    )
    pods.add_argument("--image", metavar="I", help="with py-spy and a shell; else the pod's own")
    pods.add_argument("--port", type=int, metavar="P", help="of the service's profiler endpoint")
    pods.add_argument("--job-namespace", metavar="NS", help="for the job; else the pod's own")
    pods.add_argument("--context", metavar="NAME", help="of the kubeconfig")


def run(args: argparse.Namespace) -> int:
    """Profile the pod; the rungs that failed are told on stderr, one line each."""
    if args.explain:
        return explain(args)
    if args.dump:
        raise RagprofError("--dump is for a process of this machine; give --seconds with --pod")
    from ragprof.profiling import pods

    check_outputs(args.out)
    profile = pods.attach(
        args.pod,
        container=args.container,
        pid=args.pid,
        seconds=args.seconds,
        hz=args.hz,
        native=args.native,
        idle=args.idle,
        gil=args.gil,
        subprocesses=args.subprocesses,
        nonblocking=args.nonblocking,
        rungs=tuple(args.rung or RUNGS),
        image=args.image,
        port=args.port,
        job_namespace=args.job_namespace,
        context=args.context,
        say=lambda line: print(line, file=sys.stderr),
        progress=False if args.json else None,
    )
    cut = any(note.startswith("stopped by Ctrl-C") for note in profile.notes)
    more: dict[str, Any] = {"pod": args.pod, "container": args.container, "interrupted": cut}
    tell(args, profile, more, sys.stdout)
    return INTERRUPTED if cut else 0


def explain(args: argparse.Namespace) -> int:
    """Roles and settings; with --pod also which of the rights this user has."""
    from ragprof.profiling.pods import cluster, rights

    namespace, lacking = "NAMESPACE", None
    if args.pod:
        connection = cluster.connect(args.context)
        namespace, _ = cluster.names(args.pod, connection.namespace)
        lacking = rights.lacking(connection, namespace)
    if args.json:
        rungs = [
            {
                "rung": rung.name,
                "rules": [
                    {"apiGroup": group, "resource": resource, "verbs": list(verbs)}
                    for group, resource, verbs in rung.rules
                ],
                "lacking": None if lacking is None else lacking[rung.name],
            }
            for rung in rights.RUNGS
        ]
        json.dump({"namespace": namespace, "rungs": rungs}, sys.stdout)
        print()
    else:
        print(rights.explain(namespace, lacking), end="")
    return 0
