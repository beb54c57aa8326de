"""From a request to its route template: the only form of a path that may become a label.

Works on Starlette's and FastAPI's route objects by their attributes, without importing either:
nested mounts (also with parameters), included routers, hosts, web sockets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ragprof.service.asgi import Scope

UNMATCHED = "unmatched"
"""The endpoint label of a request that no route took: raw paths would be unbounded."""

_PARAMETER = re.compile(r"{([A-Za-z_][A-Za-z0-9_]*)(?::[^}]*)?}")


@dataclass(frozen=True)
class _Entry:
    template: str
    pattern: str
    route: object


class RouteTable:
    """All templates of one application, found once and again whenever routes are added."""

    def __init__(self) -> None:
        self._app: Any = None
        self._count = -1
        self._static: dict[str, _Entry] = {}
        self._entries: list[_Entry] = []
        self._any: re.Pattern[str] | None = None
        self._of_route: dict[int, list[_Entry]] = {}

    def expected(self, scope: Scope) -> str:
        """The template of the route that will take the request, before routing was done."""
        self._look_at(scope.get("app"))
        path = _path(scope)
        entry = self._static.get(path) or self._match(path)
        return entry.template if entry else UNMATCHED

    def taken(self, scope: Scope, expected: str) -> str:
        """The template of the route that took the request; `expected` when none is known.

        That is so when a middleware answered, or handed on a copy of the scope.
        """
        entries = self._of_route.get(id(scope.get("route")))
        if entries is None:
            return expected
        templates = [entry.template for entry in entries]
        if expected in templates:
            return expected
        # A route that is included twice has two templates; the path tells which.
        path = _path(scope, scope.get("app_root_path"))
        for entry in entries:
            if re.fullmatch(entry.pattern, path):
                return entry.template
        return templates[0]

    def _look_at(self, app: Any) -> None:
        routes = getattr(app, "routes", None) or ()
        if app is self._app and len(routes) == self._count:
            return
        self._app, self._count = app, len(routes)
        self._entries = list(_entries(routes))
        self._static, self._of_route = {}, {}
        for entry in self._entries:
            self._of_route.setdefault(id(entry.route), []).append(entry)
            if "{" not in entry.template:
                self._static.setdefault(entry.template, entry)
        # One alternation: the empty group behind each branch says which one matched.
        branches = "|".join(f"{entry.pattern}()" for entry in self._entries)
        self._any = re.compile(branches) if branches else None

    def _match(self, path: str) -> _Entry | None:
        found = self._any.fullmatch(path) if self._any else None
        return self._entries[found.lastindex - 1] if found and found.lastindex else None


def _path(scope: Scope, root: str | None = None) -> str:
    """The path below the application's root path (behind a proxy that strips a prefix)."""
    path: str = scope.get("path", "")
    root = scope.get("root_path", "") if root is None else root
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :]
    return path


def _entries(routes: Iterable[Any], prefix: str = "", pattern: str = "") -> Iterator[_Entry]:
    for route in routes:
        included = getattr(route, "effective_route_contexts", None)
        if included is not None:  # FastAPI keeps an included router as one route
            for context in included():
                effective = getattr(context, "starlette_route", None) or context
                original = getattr(context, "original_route", effective)
                yield from _entry(effective, prefix, pattern, original)
        else:
            yield from _entry(route, prefix, pattern, route)


def _entry(route: Any, prefix: str, pattern: str, known_as: object) -> Iterator[_Entry]:
    inner = getattr(route, "routes", None)
    path = getattr(route, "path", None)
    if inner is None and path is None:
        return
    if inner is None or not hasattr(route, "app") or hasattr(route, "endpoint"):
        template, matches = _compile(route)
        yield _Entry(prefix + template, pattern + matches, known_as)
        return
    if path is None:  # a host: its routes stand below the same prefix
        yield from _entries(inner, prefix, pattern)
        return
    mounted, matches = _compile(route, mount=True)
    yield from _entries(inner, prefix + mounted, pattern + matches)
    # An application without routes of its own, and what no inner route takes.
    yield _Entry(f"{prefix}{mounted}/{{path}}", f"{pattern}{matches}(?:/.*)?", known_as)


def _compile(route: Any, mount: bool = False) -> tuple[str, str]:
    """A route's template without convertors, and a pattern without names."""
    path: str = route.path
    convertors = getattr(route, "param_convertors", {})
    template, pattern, end = "", "", 0
    for parameter in _PARAMETER.finditer(path):
        name = parameter.group(1)
        fixed = path[end : parameter.start()]
        regex = getattr(convertors.get(name), "regex", "[^/]+")
        template += f"{fixed}{{{name}}}"
        pattern += f"{re.escape(fixed)}(?:{regex})"
        end = parameter.end()
    rest = path[end:].rstrip("/") if mount else path[end:]
    return template + rest, pattern + re.escape(rest)
