"""Colours and type of all pictures and pages, as CSS variables for light, dark and print.

One accent, vermilion, means slow; grey means baseline; blue means less than before. The three
differ in lightness too, so that they stay apart in colour vision deficiencies and on grey paper.
"""

from __future__ import annotations

from ragprof.flamegraph.colours import FONT, PAPER

MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"

LIGHT = {
    **PAPER["light"],
    "panel": "#f6f7f9",
    "grid": "#e9ecef",
    "slow": "#c8401b",
    "slow-soft": "#f7d9cd",
    "baseline": "#74808c",
    "baseline-soft": "#e4e8ec",
    "other": "#c3cad2",
    "less": "#2f6fb0",
    "warn": "#d99a1c",
}
DARK = {
    **PAPER["dark"],
    "panel": "#1b2026",
    "grid": "#262d34",
    "slow": "#f0714a",
    "slow-soft": "#4a2a20",
    "baseline": "#98a4b0",
    "baseline-soft": "#2a323a",
    "other": "#525d68",
    "less": "#6aa9e6",
    "warn": "#d9a441",
}


def tokens(selector: str) -> str:
    """The variables on ``selector``: light, dark by the reader's preference, light in print."""
    light = "".join(f"--{name}:{value};" for name, value in LIGHT.items())
    dark = "".join(f"--{name}:{value};" for name, value in DARK.items())
    return (
        f"{selector}{{{light}}}@media (prefers-color-scheme:dark){{{selector}{{{dark}}}}}"
        f"@media print{{{selector}{{{light}}}}}"
    )


def svg_css() -> str:
    """The rules of every SVG picture; they only touch elements under ``.ragprof-svg``."""
    root = ".ragprof-svg"
    fills = "".join(f"{root} .f-{name}{{fill:var(--{name})}}" for name in LIGHT)
    strokes = "".join(
        f"{root} .s-{name}{{stroke:var(--{name});fill:none}}"
        for name in ("ink", "muted", "line", "grid", "slow", "baseline", "other", "less", "warn")
    )
    return (
        f"{tokens(root)}{root}{{font:12px {FONT};font-variant-numeric:tabular-nums}}"
        f"{root} text{{fill:var(--ink)}}{root} .t{{font-size:15px;font-weight:600}}"
        f"{root} .h{{font-weight:600}}{root} .m{{fill:var(--muted)}}{root} .n{{font-size:11px}}"
        f"{root} .e{{text-anchor:end}}{root} .c{{text-anchor:middle}}"
        f"{root} .halo{{paint-order:stroke;stroke:var(--paper);stroke-width:3px}}{fills}{strokes}"
        f"{root} text.f-slow{{fill:var(--slow)}}{root} text.f-less{{fill:var(--less)}}"
    )


def page_css() -> str:
    """Type, colours, tables and print rules of a whole page, for reports around the pictures."""
    return (
        f"{tokens(':root')}:root{{color-scheme:light dark}}"
        f"body{{background:var(--paper);color:var(--ink);font:15px/1.55 {FONT};margin:0 auto;"
        "max-width:992px;padding:24px 16px 64px;overflow-wrap:break-word}"
        "h1,h2,h3{line-height:1.25;text-wrap:balance}h1{font-size:26px;margin:0 0 12px}"
        "h2{font-size:19px;margin:40px 0 8px}h3{font-size:16px;margin:24px 0 6px}"
        f"code,pre{{font-family:{MONO};font-size:.9em}}"
        "pre{background:var(--panel);padding:10px 12px;border-radius:8px;overflow-x:auto}"
        "a{color:var(--focus)}"
        ".ragprof-lead{border-left:5px solid var(--slow);background:var(--panel);"
        "padding:14px 18px;border-radius:0 8px 8px 0;font-size:18px}"
        ".ragprof-lead strong{color:var(--slow)}.ragprof-muted{color:var(--muted)}"
        "@media (max-width:560px){body{padding:16px 12px 48px;font-size:16px}h1{font-size:22px}}"
        "@media print{body{max-width:none;padding:0}h2,h3{break-after:avoid}"
        ".ragprof-plot,tr{break-inside:avoid}}"
    )


def table_css() -> str:
    """The rules of tables, under ``.ragprof-table``."""
    root = ".ragprof-table"
    return (
        f"{tokens(root)}{root}{{color:var(--ink);background:var(--paper);font:13px/1.4 {FONT};"
        "overflow-x:auto;max-width:100%;border-radius:8px}"
        f"{root} table{{border-collapse:collapse;font-variant-numeric:tabular-nums;"
        "margin:0;border:0;font-size:13px}"
        f"{root} caption{{text-align:left;color:var(--muted);padding:2px 10px 6px}}"
        f"{root} th,{root} td{{padding:5px 10px;border:0;border-bottom:1px solid var(--line);"
        "text-align:left;vertical-align:top;background:none;color:var(--ink);"
        "max-width:30em;overflow-wrap:break-word;white-space:normal}"
        f"{root} thead th{{color:var(--muted);font-weight:600;border-bottom:2px solid var(--line);"
        "white-space:nowrap}"
        f"{root} .r{{text-align:right;white-space:nowrap}}{root} .u{{font-weight:400}}"
        f"{root} tbody tr:hover td{{background:var(--panel)}}"
        f"{root} .none{{color:var(--muted)}}"
    )
