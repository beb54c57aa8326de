"""`ragprof monitoring export DIR`: what Prometheus, Alertmanager, Grafana and the shippers load."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    export = actions.add_parser(
        "export",
        help="write rules, dashboards, log shipping, objectives into a folder",
        description="Write rules, dashboards, log shipping and objectives into a folder, "
        "generated from the catalogue. Without --plain and --kubernetes: both, in sub-folders.",
    )
    export.add_argument("folder", type=Path, metavar="DIR")
    forms = export.add_mutually_exclusive_group()
    forms.add_argument("--plain", action="store_true", help="files for the programs themselves")
    forms.add_argument("--kubernetes", action="store_true", help="resources for kubectl apply")
    export.add_argument(
        "--watch", default="", metavar="URL", help="let Alertmanager tell a `ragprof watch` as well"
    )
    export.add_argument("--json", action="store_true", help="list the files as JSON")


def run(args: argparse.Namespace) -> int:
    from ragprof.monitoring import export

    forms: tuple[str, ...] = (export.PLAIN, export.KUBERNETES)
    if args.plain or args.kubernetes:
        forms = (export.PLAIN,) if args.plain else (export.KUBERNETES,)
    written = export.export(args.folder, forms, args.watch)
    if args.json:
        print(json.dumps({"files": [str(path) for path in written]}, indent=1))
    else:
        print("\n".join(str(path) for path in written))
    return 0
