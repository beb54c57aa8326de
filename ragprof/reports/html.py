"""An executed notebook as one HTML file: no network, code behind a toggle, light, dark, print."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from html import escape, unescape
from importlib.resources import as_file, files
from typing import Any

import nbformat

import ragprof
from ragprof.plots import page_css

LARGEST = 3_000_000
"""Bytes that a page may have."""

_CLUTTER = {"parameters", "injected-parameters", "papermill-error-cell-tag"}
_RICH = ("text/html", "image/svg+xml", "image/png", "image/jpeg", "text/markdown", "text/plain")


def page(notebook: Any, status: Mapping[str, Any] | None = None) -> str:
    """The page as text, at most `LARGEST` bytes.

    Of each output the richest of HTML, SVG, PNG, JPEG, Markdown and text is shown; the largest
    ones go down to a poorer form, and in the end to a note, when the page would be too large. A
    content policy in the page forbids all network; in bundled notebooks (those with metadata
    ``ragprof``) it also forbids every script but those of the flame graphs' sandboxed frames.
    What went wrong according to `status` stands on top.
    """
    status = status or {}
    own = notebook.metadata.get("ragprof", {})
    title = str(status.get("title") or own.get("title") or "Report")
    shown = _without_clutter(notebook)
    while True:
        body, sections = _anchors(_convert(shown))
        body = body.replace(' loading="lazy"', "")  # a printed page has no scrolling
        text = _page(body, sections, title, bool(own), status)
        if len(text.encode()) <= LARGEST or not _shrink(shown):
            return text


def _page(
    body: str, sections: list[tuple[str, str]], title: str, own: bool, status: Mapping[str, Any]
) -> str:
    subject = re.search(r"<h1[^>]*>(.*?)</h1>", body, re.DOTALL)
    heading = _plain(subject[1]) if subject else ""
    name = f"{heading} · {title}" if heading and heading != title else title
    scripts = _hashes(body) if own else "'unsafe-inline'"
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
        f"media-src data:; script-src {scripts}; form-action 'none'; base-uri 'none'"
    )
    toggle = (
        '<label><input type="checkbox" id="show-code" autocomplete="off">Show code</label>'
        if '<div class="code">' in body
        else ""
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(name)}</title><style>{page_css()}{_asset('page.css')}</style></head>"
        f'<body><header class="bar"><span class="name">ragprof</span><span>{escape(title)}</span>'
        f'<span class="space"></span>{toggle}</header>'
        f"<main>{_problem(status)}{_with_contents(body, sections)}</main>"
        f'<footer class="foot">{_foot(status)}</footer></body></html>\n'
    )


def _without_clutter(notebook: Any) -> Any:
    """A copy without the cells that only set parameters or that papermill put in."""
    cells = [
        cell for cell in notebook.cells if not _CLUTTER.intersection(cell.metadata.get("tags", []))
    ]
    return nbformat.from_dict({**notebook, "cells": cells})  # type: ignore[no-untyped-call]


def _convert(notebook: Any) -> str:
    from nbconvert import HTMLExporter

    with as_file(files("ragprof.reports") / "template") as folder:
        exporter = HTMLExporter(  # type: ignore[no-untyped-call]
            template_name="report",
            template_file="index.html.j2",
            extra_template_basedirs=[str(folder)],
            filters={"text_base64": _base64},
            anchor_link_text="",
            exclude_anchor_links=True,
        )
        body, _ = exporter.from_notebook_node(notebook)
    return str(body)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _anchors(body: str) -> tuple[str, list[tuple[str, str]]]:
    """Headings of the second level with an id and a link; their ids and texts."""
    found: list[tuple[str, str]] = []

    def anchor(match: re.Match[str]) -> str:
        text = _plain(match[2])
        slug = base = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"
        while slug in {name for name, _ in found}:
            slug = f"{base}-{len(found)}"
        found.append((slug, text))
        link = f'<a class="anchor" href="#{slug}" aria-label="Link to this section">#</a>'
        return f'<h2 id="{slug}">{match[2]}{link}</h2>'

    return re.sub(r"<h2([^>]*)>(.*?)</h2>", anchor, body, flags=re.DOTALL), found


def _with_contents(body: str, sections: list[tuple[str, str]]) -> str:
    """The links to the sections, before the first of them."""
    if len(sections) < 3:
        return body
    links = "".join(f'<a href="#{slug}">{escape(text)}</a>' for slug, text in sections)
    first = f'<h2 id="{sections[0][0]}"'
    nav = f'<nav class="contents" aria-label="Sections">{links}</nav>'
    return body.replace(first, nav + first, 1)


def _hashes(body: str) -> str:
    """Content policy sources of the scripts inside the body's sandboxed frames, and no others."""
    sources = []
    for frame in re.findall(r'<iframe\b[^>]*?\ssrcdoc=("[^"]*"|\'[^\']*\')', body):
        inside = unescape(frame[1:-1])
        for script in re.findall(r"<script>(.*?)</script>", inside, re.DOTALL):
            digest = hashlib.sha256(script.encode()).digest()
            sources.append(f"'sha256-{base64.b64encode(digest).decode()}'")
    return " ".join(dict.fromkeys(sources)) or "'none'"


def _shrink(notebook: Any) -> bool:
    """Take the richest form of the largest output away; False when nothing is left to take."""
    sizes: list[tuple[int, int, Any, str]] = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            rich = next((kind for kind in _RICH if kind in data), None)
            if rich:
                sizes.append((len(str(data[rich])), len(sizes), data, rich))
            elif output.output_type == "stream":
                sizes.append((len(output.text), len(sizes), output, "text"))
    holder: Any
    size, _, holder, key = max(sizes, default=(0, 0, {}, ""))
    if size < 2000:
        return False
    if key == "text":
        holder["text"] = holder["text"][:1000] + "\n… (cut; the notebook has the whole)"
        return True
    del holder[key]
    if not any(kind in holder for kind in _RICH) or key == "text/plain":
        megabytes = size / 1e6
        holder["text/plain"] = (
            f"An output of {megabytes:.1f} MB is left out here; report.ipynb has it."
        )
    return True


def _problem(status: Mapping[str, Any]) -> str:
    error = status.get("error")
    if not error:
        return ""
    cell = error.get("cell")
    where = f" at cell {cell['number']}, <code>{escape(cell['line'])}</code>" if cell else ""
    return (
        f'<div class="problem" role="alert"><b>This report is not complete.</b> It stopped{where}: '
        f"{escape(str(error['name']))}: {escape(str(error['message'])[:600])}</div>"
    )


def _foot(status: Mapping[str, Any]) -> str:
    parts = [f"ragprof {ragprof.__version__}"]
    if status.get("ended"):
        parts.append(f"made {status['ended'][:19].replace('T', ' ')} UTC")
    if status.get("seconds") is not None:
        parts.append(f"in {status['seconds']:.1f} s")
    parts += [f"{name}={value}" for name, value in (status.get("parameters") or {}).items()]
    return escape(" · ".join(parts))


def _plain(markup: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", markup)).strip()


@cache
def _asset(name: str) -> str:
    return files("ragprof.reports").joinpath(name).read_text(encoding="utf-8")
