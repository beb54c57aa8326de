"""What must not leave the house is replaced, and the tables still join.

Attribute values go by patterns on their keys, free texts (log bodies, messages, texts of changes)
as a whole, and ids by a keyed hash, the same in all tables, events, links and exemplars.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from functools import partial
from typing import Any

import pyarrow as pa

from ragprof.rows import KEYS
from ragprof.tables import ATTRIBUTES, SCHEMAS, join_keys

MARK = "[redacted]"

DENY = (
    # secrets
    *("*authorization*", "*cookie*", "*password*", "*passwd*", "*secret*", "*credential*"),
    *("*api_key*", "*api-key*", "*apikey*", "*access_token*", "*auth_token*", "*bearer*"),
    *("*.header.*", "traceparent", "tracestate", "baggage"),
    # people and their machines
    *("enduser.*", "user.*", "user", "user_id", "session.id", "client.address", "client.ip"),
    *("net.peer.ip", "net.sock.peer.addr", "network.peer.address", "http.client_ip"),
    *("user_agent.original", "http.user_agent", "process.owner", "email", "*.email"),
    *("process.command", "process.command_line", "process.command_args"),
    # what was asked and answered
    *("db.statement", "db.query.text", "db.query.parameter.*", "db.operation.parameter.*"),
    *("url.full", "url.query", "url.path", "http.url", "http.target"),
    *("gen_ai.prompt*", "gen_ai.completion*", "gen_ai.*.messages", "gen_ai.*_instructions"),
    *("gen_ai.tool.call.arguments", "gen_ai.tool.call.result", "gen_ai.event.content"),
    *("input.value", "output.value", "*.content", "*.text", "*.input_messages*"),
    *("*.output_messages*", "*.prompts*", "*.prompt_template.*", "reranker.query"),
    *("tool.parameters", "*.function.arguments", "query", "question", "prompt", "answer"),
    *("*.query", "*.question", "llm.prompt", "*.answer", "code.stacktrace"),
    *("exception.message", "exception.stacktrace", "exception", "stack", "error.message"),
)
"""Patterns of attribute keys that are redacted unless others are given (not case-sensitive)."""

_ID = re.compile(r"(^|[._-])(trace|span|parent_span|request)[._-]?id$", re.IGNORECASE)
_OWN = {"service", "process"}  # labels that place a series; joins need them
_TEXTS = {"logs": ("body",), "spans": ("status_message",), "changes": ("text",)}
_STRUCTURE = {
    *("format", "version", "id", "state", "created", "window", "tables", "versions"),
    *("refused", "lost", "redacted", "slice"),
}
_PRIVATE = ("command", "argv", "args", "env", "url*", "endpoint", "host*", "path", "cwd", "*_url")


@dataclass
class Rules:
    """What to redact; `replaced` counts what was, by attribute key or column."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = DENY
    texts: bool = True
    ids: bool = True
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    replaced: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._allow = _patterns(self.allow)
        self._deny = _patterns(self.deny)
        self._decisions: dict[str, str] = {}

    def decide(self, key: str) -> str:
        """For an attribute key: "keep", "redact" or "hash"."""
        known = self._decisions.get(key)
        if known is None:
            if self.ids and _ID.search(key):
                known = "hash"
            elif self._deny.match(key) or (self.allow and not self._allow.match(key)):
                known = "redact"
            else:
                known = "keep"
            self._decisions[key] = known
        return known

    def hash_id(self, id_: str, digits: int) -> str:
        """The id's keyed BLAKE2b in hex; an empty id stays empty."""
        if not id_:
            return id_
        return hashlib.blake2b(id_.encode(), digest_size=digits // 2, key=self.key).hexdigest()

    def attribute(self, key: str, value: str) -> str:
        """The value that an attribute has after redaction."""
        decision = self.decide(key)
        if decision == "keep":
            return value
        self.replaced[key] += 1
        return MARK if decision == "redact" else self._hashed_value(key, value)

    def _hashed_value(self, key: str, value: str) -> str:
        digits = 16 if "span" in key.lower() else 32
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        if isinstance(parsed, list):  # a header: a list of one
            return json.dumps([self.hash_id(str(item), digits) for item in parsed])
        return self.hash_id(value, digits)


def _patterns(globs: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(translate(glob) for glob in globs) or r"(?!)", re.IGNORECASE)


def redact_tables(
    scan: Callable[[str, Any], Iterator[pa.Table]], rules: Rules
) -> dict[str, Iterator[pa.Table]]:
    """Batches by table with the rules applied, in the order of the tables."""
    return {table: _redacted(table, scan(table, None), rules) for table in SCHEMAS}


def _redacted(table: str, batches: Iterator[pa.Table], rules: Rules) -> Iterator[pa.Table]:
    for rows in batches:
        yield redact_rows(table, rows, rules)


def redact_rows(table: str, rows: pa.Table, rules: Rules) -> pa.Table:
    """One batch with the rules applied: same rows, same columns."""
    schema = SCHEMAS[table]
    columns = dict(zip(rows.column_names, rows.columns, strict=True))
    for name in schema.names:
        if schema.field(name).type == ATTRIBUTES:
            columns[name] = _attributes(columns[name], rules, table == "series")
    if rules.texts:
        for name in _TEXTS.get(table, ()):
            columns[name] = _each(columns[name], lambda text: MARK if text else text)
            rules.replaced[f"{table}.{name}"] += rows.num_rows
    if table == "spans":
        columns["events"] = _each(columns["events"], lambda text: _events(text, rules))
        columns["links"] = _each(columns["links"], lambda text: _links(text, rules))
    if rules.ids:
        for name, digits in (
            ("trace_id", 32),
            ("span_id", 16),
            ("parent_span_id", 16),
            ("request_id", 32),
        ):
            if name in columns:
                columns[name] = _each(columns[name], partial(rules.hash_id, digits=digits))
        for key, ids in KEYS.items():
            if key in columns:
                columns[key] = join_keys(*(columns[name].to_pylist() for name in ids))
        if "exemplars" in columns:
            columns["exemplars"] = _exemplars(columns["exemplars"], rules)
    return pa.table(columns, schema=schema)


def redact_manifest(manifest: dict[str, Any], rules: Rules) -> dict[str, Any]:
    """A manifest whose sources, queries and notes are scrubbed and that says what was redacted."""
    scrubbed = {
        name: value if name in _STRUCTURE else _scrub(value, name, rules)
        for name, value in manifest.items()
    }
    scrubbed["queries"] = [MARK for _ in manifest["queries"]]
    scrubbed["redacted"] = [*manifest["redacted"], told(rules)]
    return scrubbed


def told(rules: Rules) -> dict[str, Any]:
    """What a manifest says of a redaction: its rules, and what was replaced."""
    return {
        "allow": list(rules.allow),
        "deny": list(rules.deny),
        "texts": rules.texts,
        "ids": "keyed BLAKE2b" if rules.ids else "kept",
        "replaced": dict(sorted(rules.replaced.items())),
    }


def _scrub(value: Any, key: str, rules: Rules) -> Any:
    if _patterns(_PRIVATE).match(key) or rules._deny.match(key):
        return MARK
    if isinstance(value, dict):
        return {name: _scrub(item, str(name), rules) for name, item in value.items()}
    if isinstance(value, list):
        return [_scrub(item, key, rules) for item in value]
    if isinstance(value, str) and rules.decide(key) == "hash":
        return rules.attribute(key, value)
    return value


def _each(column: pa.ChunkedArray, change: Callable[[str], str]) -> pa.Array:
    """A text column with every distinct value changed once."""
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    values = pa.array([change(value) for value in encoded.dictionary.to_pylist()], pa.string())
    return values.take(encoded.indices)


def _attributes(column: pa.ChunkedArray, rules: Rules, series: bool) -> pa.ChunkedArray:
    chunks = []
    for chunk in column.chunks:
        keys, items = chunk.keys.to_pylist(), chunk.items.to_pylist()
        changed = [
            value if value is None or (series and key in _OWN) else rules.attribute(key, value)
            for key, value in zip(keys, items, strict=True)
        ]
        chunks.append(
            pa.MapArray.from_arrays(chunk.offsets, chunk.keys, pa.array(changed, pa.string()))
        )
    return pa.chunked_array(chunks, ATTRIBUTES)


def _events(text: str, rules: Rules) -> str:
    if text in ("", "[]"):
        return text
    return _json_list(text, lambda event: _with_attributes(event, rules))


def _links(text: str, rules: Rules) -> str:
    if text in ("", "[]"):
        return text

    def change(link: dict[str, Any]) -> dict[str, Any]:
        link = _with_attributes(link, rules)
        if rules.ids:
            for name, digits in (("trace_id", 32), ("span_id", 16)):
                if isinstance(link.get(name), str):
                    link[name] = rules.hash_id(link[name], digits)
            link.pop("trace_state", None)
        return link

    return _json_list(text, change)


def _json_list(text: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    try:
        items = json.loads(text)
        return json.dumps([change(dict(item)) for item in items], ensure_ascii=False)
    except (ValueError, TypeError):
        return json.dumps([{"name": MARK}])  # unreadable, so it cannot be told what it holds


def _with_attributes(item: dict[str, Any], rules: Rules) -> dict[str, Any]:
    attributes = item.get("attributes")
    if isinstance(attributes, dict):
        item["attributes"] = {
            key: value
            if rules.decide(key) == "keep"
            else rules.attribute(key, value if isinstance(value, str) else json.dumps(value))
            for key, value in attributes.items()
        }
    return item


def _exemplars(column: pa.ChunkedArray, rules: Rules) -> pa.Array:
    if column.null_count == len(column):
        return column.combine_chunks()
    lists = pa.concat_arrays(column.chunks)
    values = lists.values
    fields = [
        values.field("time"),
        values.field("value"),
        _each(pa.chunked_array([values.field("trace_id")]), lambda i: rules.hash_id(i or "", 32)),
        _each(pa.chunked_array([values.field("span_id")]), lambda i: rules.hash_id(i or "", 16)),
    ]
    type_ = column.type.value_type
    structs = pa.StructArray.from_arrays(fields, fields=list(type_))
    return pa.ListArray.from_arrays(lists.offsets, structs, type=column.type, mask=lists.is_null())
