"""``ragprof recording``: describe, verify, slice, merge, redact, query or zip a recording."""

from __future__ import annotations

import argparse
import json
import math
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from ragprof.cli import GATE, OK

COLUMNS = "columns"
"""``ragprof recording columns`` prints the tables of docs/recording.md."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands; each has ``--json``."""
    commands = parser.add_subparsers(title="sub-commands", metavar="SUBCOMMAND", required=True)

    def command(name: str, run_: Any, help_: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_, description=help_[0].upper() + help_[1:])
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.set_defaults(subcommand=run_)
        return sub

    describe = command("describe", _describe, "say what a recording holds")
    describe.add_argument("recording", type=Path)

    verify = command("verify", _verify, "check sizes, checksums and row counts; 3 when they differ")
    verify.add_argument("recording", type=Path)

    slice_ = command("slice", _slice, "take a part: by time, by trace, by service")
    slice_.add_argument("recording", type=Path)
    slice_.add_argument("--since", metavar="TIME", help="ISO 8601 with a zone; included")
    slice_.add_argument("--until", metavar="TIME", help="ISO 8601 with a zone; excluded")
    slice_.add_argument("--trace", action="append", metavar="ID", help="may be repeated")
    slice_.add_argument("--service", action="append", metavar="NAME", help="may be repeated")
    _out(slice_)

    merge = command("merge", _merge, "make one recording of several")
    merge.add_argument("recording", type=Path, nargs="+")
    _out(merge)

    redact = command("redact", _redact, "replace private values; the tables still join")
    redact.add_argument("recording", type=Path)
    redact.add_argument(
        "--allow", action="append", metavar="GLOB", help="keep only attributes with such keys"
    )
    redact.add_argument(
        "--deny",
        action="append",
        metavar="GLOB",
        help="redact attributes with such keys, besides those redacted by default",
    )
    redact.add_argument("--keep-texts", action="store_true", help="keep log bodies and messages")
    redact.add_argument("--keep-ids", action="store_true", help="do not hash ids")
    redact.add_argument(
        "--key-file",
        type=Path,
        metavar="FILE",
        help="key of the hash: the same file keeps ids equal between recordings",
    )
    _out(redact)

    sql = command("sql", _sql, "query the tables with one SELECT")
    sql.add_argument("recording", type=Path)
    sql.add_argument("query")

    zip_ = command("zip", _zip, "copy a recording into one file, NAME.ragprof.zip")
    zip_.add_argument("recording", type=Path)
    zip_.add_argument("--out", type=Path, metavar="FILE", help="default: beside the recording")

    command(COLUMNS, _columns, "print every column with its type, unit and meaning")


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; 0, or 3 when `verify` finds damage."""
    return int(args.subcommand(args))


def _out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, required=True, metavar="NAME", help="new folder, or file ending in .zip"
    )


def _describe(args: argparse.Namespace) -> int:
    from ragprof import recording

    opened = recording.open(args.recording)
    _print(args, {"path": str(opened.path), **opened.manifest}, opened.describe())
    return OK


def _verify(args: argparse.Namespace) -> int:
    from ragprof import recording

    problems = recording.open(args.recording).verify()
    good = f"{args.recording}: sizes, checksums and row counts agree"
    _print(
        args,
        {"path": str(args.recording), "ok": not problems, "problems": problems},
        "\n".join(problems) or good,
    )
    return GATE if problems else OK


def _slice(args: argparse.Namespace) -> int:
    from ragprof import recording

    opened = recording.open(args.recording)
    part = opened.slice(args.since, args.until, traces=args.trace, services=args.service)
    return _saved(args, part.save(args.out))


def _merge(args: argparse.Namespace) -> int:
    from ragprof import recording

    return _saved(args, recording.merge(args.recording, args.out))


def _redact(args: argparse.Namespace) -> int:
    from ragprof import recording
    from ragprof.redaction import DENY

    redacted = recording.open(args.recording).redact(
        allow=args.allow or (),
        deny=(*DENY, *(args.deny or ())),
        texts=not args.keep_texts,
        ids=not args.keep_ids,
        key=_key(args.key_file),
    )
    return _saved(args, redacted.save(args.out))


def _key(file: Path | None) -> bytes | None:
    if file is None:
        return None
    from ragprof.recording import RecordingError

    try:
        key = file.read_bytes()
    except OSError as error:
        raise RecordingError(f"key file {file}: cannot read ({error.strerror})") from None
    if len(key) < 16:
        raise RecordingError(f"key file {file} has {len(key)} bytes; give at least 16 random ones")
    return key


def _sql(args: argparse.Namespace) -> int:
    from ragprof import recording

    frame = recording.open(args.recording).sql(args.query)
    if args.json:
        rows = frame.to_dict(orient="records")
        print(json.dumps([{str(k): _plain(v) for k, v in row.items()} for row in rows]))
    else:
        print(frame.to_string(index=False) if len(frame) else "no rows")
    return OK


def _zip(args: argparse.Namespace) -> int:
    from ragprof import recording

    name = args.recording.name.removesuffix(".ragprof")
    out = args.out or args.recording.with_name(f"{name}.ragprof.zip")
    return _saved(args, recording.open(args.recording).save(out))


def _columns(args: argparse.Namespace) -> int:
    from ragprof import tables

    described = [
        {
            "table": table,
            "column": field.name,
            "type": str(field.type),
            "unit": (field.metadata or {}).get(b"unit", b"").decode(),
            "meaning": (field.metadata or {}).get(b"meaning", b"").decode(),
        }
        for table, schema in tables.SCHEMAS.items()
        for field in schema
    ]
    _print(args, described, _markdown(described))
    return OK


def _markdown(columns: list[dict[str, str]]) -> str:
    """The columns as one Markdown table per table."""
    lines: list[str] = []
    for row in columns:
        if f"### {row['table']}" not in lines:
            lines += ["", f"### {row['table']}", "", "| column | type | unit | meaning |"]
            lines.append("|---|---|---|---|")
        type_ = row["type"].replace("|", "\\|")
        lines.append(f"| `{row['column']}` | `{type_}` | {row['unit']} | {row['meaning']} |")
    return "\n".join(lines).strip()


def _saved(args: argparse.Namespace, saved: Any) -> int:
    _print(args, {"path": str(saved.path), **saved.manifest}, saved.describe())
    return OK


def _print(args: argparse.Namespace, value: Any, text: str) -> None:
    if args.json:
        json.dump(value, sys.stdout, indent=1, default=str)
        print()
    else:
        print(text)


def _plain(value: Any) -> Any:
    """A value as JSON: times as ISO 8601, NaN and infinities as text, as JSON has none."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat() if value == value else None  # NaT
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)
