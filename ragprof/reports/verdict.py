"""The top of the report and its last section, as HTML that brings its own style."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from ragprof.flamegraph.colours import FONT
from ragprof.plots.scales import ms_text, number_text
from ragprof.plots.style import MONO, tokens
from ragprof.reports import investigation

if TYPE_CHECKING:
    from ragprof.investigation.result import Investigation

_ROOT = ".ragprof-verdict"
_STYLE = (
    f"{tokens(_ROOT)}{_ROOT}{{font:15px/1.5 {FONT};color:var(--ink);background:var(--paper);"
    "max-width:960px;overflow-wrap:anywhere}"
    f"{_ROOT} .over{{color:var(--muted);font-size:13px;margin:0 0 10px}}"
    f"{_ROOT} h1{{font-size:26px;line-height:1.28;font-weight:650;margin:0 0 20px;"
    "letter-spacing:-.01em;text-wrap:pretty}"
    f"{_ROOT} .figures{{display:flex;flex-wrap:wrap;gap:16px 44px;align-items:flex-end;"
    "margin:0 0 22px}"
    f"{_ROOT} .figure b{{display:block;font-size:22px;line-height:1.2;font-weight:600;"
    "font-variant-numeric:tabular-nums;color:var(--ink)}"
    f"{_ROOT} .figure.main b{{font-size:54px;line-height:1;letter-spacing:-.03em;"
    "color:var(--slow)}"
    f"{_ROOT}.none .figure.main b{{color:var(--muted)}}"
    f"{_ROOT} .figure span{{color:var(--muted);font-size:13px}}"
    f"{_ROOT} .where{{background:var(--panel);border-left:4px solid var(--slow);"
    "border-radius:0 8px 8px 0;padding:12px 16px;margin:0 0 18px}"
    f"{_ROOT}.none .where{{border-color:var(--baseline)}}"
    f"{_ROOT} code{{font:.92em {MONO};background:none;padding:0;color:inherit}}"
    f"{_ROOT} .where code{{font-weight:600}}"
    f"{_ROOT} .where small{{display:block;color:var(--muted);font-size:13px;margin-top:3px}}"
    f"{_ROOT} .said{{margin:0 0 10px;max-width:46em}}"
    f"{_ROOT} .sides{{display:grid;grid-template-columns:repeat(auto-fit,minmax(260px,1fr));"
    "gap:8px 32px}"
    f"{_ROOT} h4{{font-size:13px;font-weight:600;color:var(--muted);margin:0 0 4px}}"
    f"{_ROOT} ul{{margin:0;padding-left:18px;font-size:14px}}{_ROOT} li{{margin:2px 0}}"
    f"{_ROOT} ol{{margin:0;padding-left:20px;font-size:14px}}"
    f"{_ROOT} .more{{margin-top:18px}}"
    f"{_ROOT} pre{{background:var(--panel);color:var(--ink);border-radius:8px;"
    f"padding:10px 12px;font:12.5px/1.5 {MONO};white-space:pre-wrap;margin:4px 0 14px}}"
    f"@media (max-width:560px){{{_ROOT} h1{{font-size:21px}}"
    f"{_ROOT} .figure.main b{{font-size:46px}}{_ROOT} .figures{{gap:12px 28px}}"
    f"{_ROOT} .figure.main{{flex-basis:100%}}}}"
)


@dataclass(frozen=True)
class Block:
    """HTML with its text fallback."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}


def headline(found: Investigation) -> Block:
    """The finding in one sentence, the added milliseconds, the place, the evidence."""
    rows: list[dict[str, Any]] = [
        {str(key): value for key, value in row.items()} for row in found.findings.to_dict("records")
    ]
    caused = found.verdict == "cause_found" and bool(rows)
    body = (
        f'<p class="over">{escape(found.operation)} · {_window(found)}</p>'
        f"<h1>{escape(_sentence(found.summary))}</h1>{_figures(found, caused)}"
    )
    if caused:
        body += (
            _where(rows[0])
            + _advice(rows[0])
            + _source(rows[0])
            + _sides(rows[0]["for"], rows[0]["against"])
            + _rest(rows[1:])
        )
    else:
        body += (
            '<div class="where">No cause is named, because nothing that was seen differs more '
            "than this service's own windows differ from each other."
            "<small>What there is to see follows.</small></div>"
        )
    if found.notes:
        body += _list("Notes", found.notes, "more")
    style = "" if caused else " none"
    return Block(
        f'<style>{_STYLE}</style><div class="ragprof-verdict{style}">{body}</div>',
        "\n".join(found.lines()),
    )


def reproduce(found: Investigation, **parameters: str) -> Block:
    """The command, the library call and the SQL of the findings."""
    command = investigation.command(found, **parameters)
    given = "".join(
        f", {name}={value!r}"
        for name, value in parameters.items()
        if value and (name, value) != ("slow", "p95")
    )
    python = (
        "from ragprof.reports.investigation import read\n"
        f"inv = read({str(found.recording.path)!r}{given})\ninv.findings"
    )
    parts = [("This report", command), ("In Python", python)]
    if len(found.findings):
        parts.append(("The rows behind the first finding", "inv.finding(1).evidence()"))
    for row in found.findings.to_dict("records"):
        if row.get("sql"):
            parts.append((f"Finding {row['rank']} in SQL: inv.recording.sql(…)", str(row["sql"])))
    html = "".join(f"<h4>{escape(name)}</h4><pre>{escape(text)}</pre>" for name, text in parts)
    return Block(
        f'<style>{_STYLE}</style><div class="ragprof-verdict">{html}</div>',
        "\n\n".join(f"{name}\n{text}" for name, text in parts),
    )


def _figures(found: Investigation, caused: bool) -> str:
    groups = [
        found.requests.loc[found.requests["group"] == name, "duration_ms"].to_numpy(float)
        for name in ("baseline", "slow")
    ]
    if not all(len(values) for values in groups):
        return ""
    entries = []
    if caused or found.window != found.baseline_window:
        whole = float(found.stages["added_ms"].sum())
        entries.append(("main", ms_text(whole, sign=True), "mean per request"))
    for share, name in ((0.5, "median"), (0.95, "95th percentile")):
        before, after = (float(np.quantile(values, share)) for values in groups)
        entries.append(("", f"{ms_text(before)} → {ms_text(after)}", f"{name}, baseline → slow"))
    if caused and np.isfinite(found.findings["p95_without_ms"].iloc[0]):
        first = found.findings.iloc[0]
        low, high = (ms_text(float(first[f"p95_without_{end}_ms"])) for end in ("low", "high"))
        entries.append(
            ("", ms_text(float(first["p95_without_ms"])), f"p95 without it ({low} to {high})")
        )
    items = "".join(
        f'<div class="figure {style}"><b>{escape(number)}</b><span>{escape(name)}</span></div>'
        for style, number, name in entries
    )
    return f'<div class="figures">{items}</div>'


def _where(row: Mapping[str, Any]) -> str:
    function, file, line = str(row["function"]), str(row["file"]), row["line"]
    place = f"<code>{escape(function)}</code>" if function else ""
    if file:
        short = "/".join(PurePath(file).parts[-3:])
        place += f' <span title="{escape(file)}">in <code>{escape(f"{short}:{line}")}</code></span>'
    place = place or f"<code>{escape(str(row['resource'] or row['span']))}</code>"
    facts = [str(row["kind"]).replace("_", " "), f"stage {row['stage']}", str(row["service"])]
    if row["span"]:
        facts.append(f"span {row['span']}")
    if row["resource"] and function:
        facts.append(f"resource {row['resource']}")
    facts.append(f"{ms_text(float(row['added_ms']), sign=True)} of the difference")
    facts.append(f"p = {number_text(float(row['p_value']), 2)}")
    return f'<div class="where">{place}<small>{escape(" · ".join(facts))}</small></div>'


def _advice(row: Mapping[str, Any]) -> str:
    return (
        f'<p class="said">{escape(str(row["text"]))}</p>'
        f'<p class="said"><b>What to do:</b> {escape(str(row["advice"]))}</p>'
    )


def _source(row: Mapping[str, Any]) -> str:
    """Hot lines and commits, when a checkout was given."""
    html = ""
    if row["lines"]:
        lines = "\n".join(
            f"{ms_text(float(one['added_ms']), sign=True):>10}  "
            f"{int(one['line']):>5}  {one['text']}"
            for one in row["lines"]
        )
        html += f"<h4>Lines, added per request</h4><pre>{escape(lines)}</pre>"
    if row["commits"]:
        html += _list(
            "Commits that touched it between the two versions",
            [f"{one['commit']} {one['date'][:10]} {one['subject']}" for one in row["commits"]],
        )
    return html


def _sides(support: list[str], against: list[str]) -> str:
    right = _list("Against", against or ["nothing was seen that speaks against it"])
    return f'<div class="sides">{_list("For", support)}{right}</div>'


def _rest(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    items = "".join(
        f"<li>{escape(str(row['kind']).replace('_', ' '))} in {escape(str(row['stage']))}, "
        f"{escape(str(row['service']))}: "
        f"<code>{escape(str(row['function'] or row['resource'] or row['span']))}</code> "
        f"{escape(ms_text(float(row['added_ms']), sign=True))}, "
        f"p = {number_text(float(row['p_value']), 2)}</li>"
        for row in rows
    )
    return f'<div class="more"><h4>Also found</h4><ol start="2">{items}</ol></div>'


def _list(name: str, texts: list[str], style: str = "") -> str:
    items = "".join(f"<li>{escape(str(text))}</li>" for text in texts)
    return f'<div class="{style}"><h4>{escape(name)}</h4><ul>{items}</ul></div>'


def _window(found: Investigation) -> str:
    begin, end = found.window
    counts = found.requests["group"].value_counts()
    return (
        f"{begin:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S} UTC · {counts.get('slow', 0):,} slow "
        f"against {counts.get('baseline', 0):,} baseline requests"
    )


def _sentence(text: str) -> str:
    """Places to break a long dotted name at."""
    return text.replace(":", ":\u200b").replace("_", "_\u200b") if len(text) > 60 else text
