"""`ragprof demo`: record a RAG service with a fault, find the fault, write the report."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from ragprof.errors import RagprofError

ACTIONS = {
    "evaluate": "compare findings.json with truth.json in folders made by the demo",
    "effects": "measure how much each fault slows its operation down",
    "matrix": "record many faults and seeds once, investigate them again and again",
    "nulls": "cut a fault-free Recording into pairs of windows: how often is a cause named?",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "; ".join(f"demo {name}: {text}" for name, text in ACTIONS.items())
    parser.add_argument("action", nargs="?", choices=ACTIONS, metavar="|".join(ACTIONS))
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="DIR", help="for evaluate; nulls: a Recording"
    )
    parser.add_argument("--fault", default="blocking_call", metavar="NAME", help="see --list")
    parser.add_argument(
        "--fault-module",
        metavar="PATH:FUNCTION",
        help="your own fault: FUNCTION(service) runs in the service when the fault begins",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the load (1)")
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="length of each window (25; 90 where a fault needs that to show)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write (ragprof-demo)")
    parser.add_argument("--record-only", action="store_true", help="do not investigate")
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    parser.add_argument("--faults", metavar="A,B", help="effects, matrix: which (default: all)")
    parser.add_argument("--seeds", default="1", metavar="1,2", help="matrix: seeds of the load")
    parser.add_argument("--pairs", type=int, default=40, metavar="N", help="nulls: pairs (40)")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="nulls: draw the p-values")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")


def run(args: argparse.Namespace) -> int:
    if args.seconds is not None and not 5 <= args.seconds <= 1800:
        raise RagprofError(
            "--seconds is between 5 and 1800: shorter windows hold too few requests."
        )
    if args.list:
        return _list(args)
    actions: dict[str | None, Callable[[argparse.Namespace], int]] = {
        None: _demo,
        "evaluate": _evaluate,
        "effects": _effects,
        "matrix": _matrix,
        "nulls": _nulls,
    }
    return actions[args.action](args)


def _demo(args: argparse.Namespace) -> int:
    from ragprof.demo import faults
    from ragprof.demo.record import record_demo

    out = args.out or Path("ragprof-demo")
    module = _module(args.fault_module) if args.fault_module else None
    fault = faults.foreign(args.fault_module) if module else faults.named(args.fault)
    if args.record_only:
        truth = record_demo(out, fault, args.seed, args.seconds, module, quiet=args.json)
        print(json.dumps(truth) if args.json else f"Recorded: {out / 'recording.ragprof'}")
        return 0
    from ragprof.demo.run import in_three_lines, run_demo

    found = run_demo(out, fault, args.seed, args.seconds, module, quiet=args.json)
    print(json.dumps(found.to_dict()) if args.json else "\n".join(in_three_lines(found, out)))
    return 0


def _module(text: str) -> tuple[Path, str]:
    path, separator, function = text.rpartition(":")
    if not separator or not path or not function.isidentifier():
        raise RagprofError(f"--fault-module takes PATH:FUNCTION, not {text!r}.")
    if not Path(path).is_file():
        raise RagprofError(f"{path} is not a file: --fault-module takes PATH:FUNCTION.")
    return Path(path), function


def _list(args: argparse.Namespace) -> int:
    from ragprof.demo.faults import FAULTS

    rows = [
        {
            "name": fault.name,
            "summary": fault.summary,
            "load": fault.load,
            "seams": list(fault.seams),
            "stage": fault.truth.stage if fault.truth else "",
            "kind": fault.truth.kind if fault.truth else "",
        }
        for fault in FAULTS.values()
    ]
    if args.json:
        print(json.dumps(rows))
    else:
        for row in rows:
            print(f"{row['name']:<18}{row['summary']}")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from ragprof.demo import evaluate

    if not args.folders:
        raise RagprofError("Name the folders to evaluate: ragprof demo evaluate DIR…")
    judged = [evaluate.judge(folder) for folder in args.folders]
    print(json.dumps(evaluate.evaluation(judged)) if args.json else evaluate.table(judged))
    return 0


def _effects(args: argparse.Namespace) -> int:
    from ragprof.demo import effects

    rows = effects.measure(_faults(args), args.seed, args.seconds, _say(args))
    print(json.dumps(rows) if args.json else effects.table(rows))
    return 0


def _matrix(args: argparse.Namespace) -> int:
    from ragprof.demo import effects, evaluate
    from ragprof.demo.record import read_truth

    try:
        seeds = [int(seed) for seed in args.seeds.split(",")]
    except ValueError:
        raise RagprofError(f"--seeds takes numbers like 1,2,3, not {args.seeds!r}.") from None
    out = args.out or Path("ragprof-demo-matrix")
    names = _faults(args)
    if args.record_only:
        from ragprof.demo.record import record_matrix

        folders = record_matrix(out, names, seeds, args.seconds, quiet=args.json)
        rows = [effects.row(read_truth(folder)) for folder in folders]
        print(json.dumps(rows) if args.json else effects.table(rows))
        return 0
    from ragprof.demo.run import investigate_matrix

    judged = [
        evaluate.judge(folder)
        for folder in investigate_matrix(out, names, seeds, args.seconds, quiet=args.json)
    ]
    print(json.dumps(evaluate.evaluation(judged)) if args.json else evaluate.table(judged))
    return 0


def _nulls(args: argparse.Namespace) -> int:
    from ragprof import recording
    from ragprof.demo import nulls

    if len(args.folders) != 1:
        raise RagprofError("Name one fault-free Recording: ragprof demo nulls NAME.ragprof")
    measured = nulls.measure(recording.open(args.folders[0]), args.pairs, _say(args))
    if args.svg:
        args.svg.write_text(nulls.picture(measured).svg(620), encoding="utf-8")
    if args.json:
        rows = json.loads(measured.to_json(orient="records", date_format="iso"))
        print(json.dumps(nulls.summary(measured) | {"rows": rows}))
    else:
        print(nulls.table(measured))
    return 0


def _faults(args: argparse.Namespace) -> list[str]:
    from ragprof.demo import faults

    names = args.faults.split(",") if args.faults else list(faults.FAULTS)
    return [faults.named(name).name for name in names]


def _say(args: argparse.Namespace) -> Callable[[str], None]:
    def say(text: str) -> None:
        if not args.json:
            print(f"ragprof demo: {text}", file=sys.stderr, flush=True)

    return say
