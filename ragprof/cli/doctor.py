"""`ragprof doctor [pre|post|weekly|monthly|quarterly|annual]`: the checklists, run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

KINDS = ("pre", "post", "weekly", "monthly", "quarterly", "annual")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", choices=KINDS, default="pre", help="which list (pre)")
    parser.add_argument(
        "--metrics", action="append", default=[], metavar="URL", help="a metrics page"
    )
    parser.add_argument("--prometheus", default="", metavar="URL")
    parser.add_argument("--alertmanager", default="", metavar="URL")
    parser.add_argument("--elasticsearch", default="", metavar="URL")
    parser.add_argument("--jaeger", default="", metavar="URL", help="query address")
    parser.add_argument("--otlp", default="", metavar="URL", help="where spans are sent")
    parser.add_argument(
        "--log-file", default="", metavar="PATH", help="a shipped log file: a marked line is added"
    )
    parser.add_argument(
        "--rules", default="", metavar="PATH", help="rule file or folder (those of the catalogue)"
    )
    parser.add_argument(
        "--receiver",
        type=int,
        default=0,
        metavar="PORT",
        help="loopback port to which a webhook receiver of Alertmanager points",
    )
    parser.add_argument("--sampling", type=float, metavar="SHARE", help="configured, 0 to 1")
    parser.add_argument("--service", default="rag-api", metavar="NAME", help="(rag-api)")
    parser.add_argument("--config", default="", metavar="TOML", help="a capture's configuration")
    parser.add_argument("--window", metavar="1h", help="how far back (1h; a review's own period)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the page, too")
    parser.add_argument(
        "--strict", action="store_true", help="warnings fail as well; so do checks not asked for"
    )
    parser.add_argument("--json", action="store_true", help="answer with JSON")


def run(args: argparse.Namespace) -> int:
    from ragprof.cli import GATE, OK
    from ragprof.doctor import after, before, checks, page, reviews
    from ragprof.errors import RagprofError
    from ragprof.slo.rulefile import seconds

    window = seconds(args.window) if args.window else reviews.WINDOWS.get(args.kind, 3600.0)
    if args.sampling is not None and not 0 <= args.sampling <= 1:
        raise RagprofError("--sampling is a share from 0 to 1; correct it")
    places = checks.Places(
        metrics=tuple(args.metrics),
        prometheus=args.prometheus.rstrip("/"),
        alertmanager=args.alertmanager.rstrip("/"),
        elasticsearch=args.elasticsearch.rstrip("/"),
        jaeger=args.jaeger.rstrip("/"),
        otlp=args.otlp.rstrip("/"),
        log_file=args.log_file,
        rules=args.rules,
        receiver=args.receiver,
        sampling=args.sampling,
        service=args.service,
        config=args.config,
        window=window,
    )
    lists = {"pre": before.CHECKS, "post": after.CHECKS, **reviews.CHECKS}
    results = checks.run(lists[args.kind], places)
    if args.html:
        try:
            args.html.write_text(page.page(args.kind, results), encoding="utf-8")
        except OSError as error:
            raise RagprofError(
                f"{args.html} cannot be written: {error.strerror}; choose another --html"
            ) from None
    if args.json:
        print(json.dumps(checks.to_dict(args.kind, results), indent=1))
    else:
        for each in results:
            print(f"{each.state:<10} {each.name}: {each.evidence}")
            if each.next_step:
                print(f"{'':<10} next: {each.next_step}")
    states = {each.state for each in results}
    bad = {checks.FAILED} | ({checks.WARNING, checks.SKIPPED} if args.strict else set())
    return GATE if states & bad else OK
