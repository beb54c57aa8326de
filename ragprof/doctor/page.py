"""A checklist as one HTML page: no script, no network, everything escaped."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape

from ragprof.doctor.checks import Result, worst
from ragprof.plots import page_css

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = (
    "table{border-collapse:collapse;width:100%}td,th{padding:8px 10px;text-align:left;"
    "vertical-align:top;border-bottom:1px solid var(--line)}"
    ".state{white-space:nowrap;font-weight:600}.failed{color:var(--slow)}"
    ".warning{color:var(--warn)}.not-asked{color:var(--muted)}"
)


def page(kind: str, results: list[Result]) -> str:
    """The page as text."""
    rows = "".join(
        f'<tr><td class="state {each.state.replace(" ", "-")}">{escape(each.state)}</td>'
        f"<td>{escape(each.name)}</td><td>{escape(each.evidence)}</td>"
        f"<td>{escape(each.next_step)}</td></tr>"
        for each in results
    )
    counts = ", ".join(
        f"{sum(each.state == state for each in results)} {state}"
        for state in dict.fromkeys(each.state for each in results)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
        f'<link rel="icon" href="data:,"><title>Checklist {escape(kind)}: {worst(results)}</title>'
        f"<style>{page_css()}{_STYLE}</style></head><body><h1>Checklist: {escape(kind)}</h1>"
        f'<p class="ragprof-lead"><strong>{escape(worst(results))}</strong> · {escape(counts)}</p>'
        "<table><thead><tr><th>result</th><th>check</th><th>evidence</th><th>next step</th></tr>"
        f"</thead><tbody>{rows}</tbody></table>"
        f'<p class="ragprof-muted">ragprof doctor {escape(kind)}, '
        f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC</p></body></html>\n"
    )
