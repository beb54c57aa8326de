"""elasticsearch-py, versions 8.15 to 9, as a reader: raw answers, bounded tries, plain errors.

Answers stay bytes: what is in a page of hits is decoded where it becomes columns. All calls are
reads, so each may be repeated.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, TypeVar

import elastic_transport
import elasticsearch

from ragprof.sources.elasticsearch_pages import Document, Page, page
from ragprof.sources.http import (
    AGAIN,
    FIRST_WAIT,
    LONGEST_WAIT,
    SHOWN,
    Connection,
    TooMuch,
    tls_context,
    without_user,
)
from ragprof.sources.settings import Secret
from ragprof.sources.source import SourceError

KEEP_ALIVE = "2m"  # of a point in time, from its last page

T = TypeVar("T")


class Expired(SourceError):
    """A point in time that the server has forgotten; its reading starts again."""


class _Raw(elastic_transport.Serializer):
    """Bodies go out as JSON and come in as they are."""

    mimetype = "application/json"

    def loads(self, data: bytes) -> Any:
        return data

    def dumps(self, data: Any) -> bytes:
        return data if isinstance(data, bytes) else json.dumps(data).encode()


class Elastic:
    """Asks one cluster; safe between threads."""

    def __init__(
        self,
        name: str,
        to: Connection,
        api_key: Secret | None = None,
        *,
        wait: Callable[[float], Any] = time.sleep,
    ) -> None:
        self.name, self.address, self._to, self._wait = name, to.address, to, wait
        self.requests = self.repeated = self.received = 0
        near = elastic_transport.client_utils.url_to_node_config(to.url).host in (
            "localhost",
            "127.0.0.1",
            "::1",
        )
        how: dict[str, Any] = {}
        if to.url.startswith("https"):
            how["ssl_context"] = tls_context(to)
        if api_key is not None:
            how["api_key"] = api_key.reveal()
        elif to.token is not None:
            how["bearer_auth"] = to.token.reveal()
        elif to.password is not None:
            how["basic_auth"] = (to.user, to.password.reveal())
        headers = {**to.headers, **{k: secret.reveal() for k, secret in to.secret_headers.items()}}
        if headers:
            how["headers"] = headers
            # At DEBUG the library writes all headers but Authorization into the log.
            logging.getLogger("elastic_transport.node").setLevel(logging.INFO)
        raw = _Raw()
        self._client = elasticsearch.Elasticsearch(
            [_with_port(to.url)],
            serializers={raw.mimetype: raw, "application/vnd.elasticsearch+json": raw},
            request_timeout=to.timeout,
            retry_on_timeout=False,
            max_retries=0,  # ours wait longer each time
            http_compress=not near,
            connections_per_node=16,
            **how,
        )

    def close(self) -> None:
        self._client.close()

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        read: Callable[[bytes], T] = json.loads,
        **params: Any,
    ) -> T:
        """`read` of an answer's bytes; a ValueError of `read` means garbage, and another try.

        Raises Expired, TooMuch when the cluster has no memory for the answer, else SourceError.
        """
        pause = FIRST_WAIT
        for left in range(self._to.retries, -1, -1):
            self.requests += 1
            try:
                return read(self._once(method, path, body, params))
            except elasticsearch.UnsupportedProductError:
                if not left:  # what stands in between may have answered
                    raise SourceError(
                        f"{self.name}: {self.address} answers, but not as Elasticsearch; give the "
                        "address of an Elasticsearch cluster (OpenSearch is another product)."
                    ) from None
            except elasticsearch.ApiError as error:
                refusal = self._refusal(error, path)
                if isinstance(refusal, Expired | TooMuch):
                    raise refusal from None
                if error.meta.status not in AGAIN or not left:
                    raise refusal from None
            except elastic_transport.TransportError as error:
                if not left or isinstance(error, elastic_transport.TlsError):
                    raise SourceError(self._unreachable(error)) from None
            except ValueError as error:
                if not left:
                    raise SourceError(
                        f"{self.name}: {self.address}{path} answers garbage "
                        f"({str(error)[:SHOWN]}); is it the right address?"
                    ) from None
            self.repeated += 1
            self._wait(min(LONGEST_WAIT, pause * (0.5 + random.random())))  # noqa: S311
            pause *= 2
        raise AssertionError("every try returns, raises or repeats")

    def search(
        self, body: Mapping[str, Any], index: str = "", read: Callable[[bytes], Page] = page
    ) -> Page:
        """One page. All shards answered: raises SourceError when some could not."""
        # No filter_path: with it the server parses each document instead of copying it.
        path = f"/{index}/_search" if index else "/_search"
        found = self.ask("POST", path, dict(body), read, allow_partial_search_results="false")
        if found.timed_out or found.shards.failed:
            why = bytes(found.shards.failures).decode("utf-8", "replace")
            raise SourceError(
                f"{self.name}: {found.shards.failed or 'some'} shards of {index or 'the indices'} "
                f"did not answer ({_reason(why)}), so rows would be missing; look at the "
                "cluster's health and try again."
            )
        return found

    def pages(
        self, index: str, query: Mapping[str, Any], size: int, **more: Any
    ) -> Iterator[list[Document]]:
        """All hits of one point in time, page by page, in no special order, each once.

        Raises Expired when the server forgets it before the end.
        """
        with self.point_in_time(index) as pit:
            yield from self.pages_at(pit, query, size, **more)

    def point_in_time(self, index: str) -> _PointInTime:
        return _PointInTime(self, index)

    def pages_at(
        self,
        pit: _PointInTime,
        query: Mapping[str, Any],
        size: int,
        read: Callable[[bytes], Page] = page,
        **more: Any,
    ) -> Iterator[list[Document]]:
        """The hits of a point in time that match, page by page; see `pages`.

        With a PageReader as `read` they are `elasticsearch_pages.Documents`.
        """
        after: Any = None
        while True:
            body: dict[str, Any] = {
                "size": size,
                "query": query,
                "pit": {"id": pit.id, "keep_alive": KEEP_ALIVE},
                "sort": more.pop("sort", None) or [{"_shard_doc": "asc"}],
                "track_total_hits": False,
                **more,
            }
            more["sort"] = body["sort"]
            if after is not None:
                body["search_after"] = after
            try:
                found = self.search(body, read=read)
            except TooMuch:
                if size <= 1:
                    raise
                size = max(1, size // 4)
                continue
            pit.id = found.pit_id or pit.id
            hits = found.hits.hits
            if hits:
                yield [hit.source for hit in hits]
            if len(hits) < size:
                return
            after = json.loads(bytes(hits[-1].sort))

    def _once(self, method: str, path: str, body: Any, params: Mapping[str, Any]) -> bytes:
        headers = {"accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/json"
        answer = self._client.perform_request(
            method, path, params=params or None, headers=headers, body=body
        )
        raw = answer.body
        content = raw if isinstance(raw, bytes) else str(raw).encode()
        self.received += len(content)
        return content

    def _refusal(self, error: elasticsearch.ApiError, path: str) -> SourceError:
        status = error.meta.status
        content = error.body if isinstance(error.body, bytes) else str(error.body).encode()
        text = content.decode("utf-8", "replace")
        where = f"{self.name}: {self.address}"
        if "media_type_header_exception" in text or "compatible-with" in text:
            client = version("elasticsearch")
            return SourceError(
                f"{where} is an older Elasticsearch than the installed elasticsearch-py {client} "
                'can ask: pip install "elasticsearch>=8.15,<9" (the client\'s major version must '
                "not be above the server's)."
            )
        if "search_context_missing_exception" in text:
            return Expired(f"{where} forgot the point in time ({KEEP_ALIVE} without a page).")
        if "circuit_breaking_exception" in text or "content_too_long" in text or status == 413:
            return TooMuch(
                f"{where} has no memory for one document of this answer ({_reason(text)}); "
                "ask for a shorter window, or give the cluster more heap."
            )
        if "index_not_found_exception" in text:
            return SourceError(
                f"{where} has no index {_missing_index(text) or path.split('/')[1]}; give an "
                "index or pattern that exists (GET _cat/indices lists them)."
            )
        steps = {
            401: "give api_key, or user and password",
            403: "this user may not read here: it needs the privilege read on these indices",
            429: "the cluster is overloaded: lower parallel, or try later",
        }
        step = steps.get(status, "see what the server logs")
        return SourceError(f"{where}{path} answers {status} ({_reason(text)}); {step}.")

    def _unreachable(self, error: elastic_transport.TransportError) -> str:
        why = str(error.message).splitlines()[0][:SHOWN] if str(error.message) else "no answer"
        where = f"{self.name}: {self.address}"
        if isinstance(error, elastic_transport.ConnectionTimeout):
            return f"{where} does not answer within {self._to.timeout:g} s; is it up and near?"
        if isinstance(error, elastic_transport.TlsError):
            return f"{where} has a certificate that is not trusted ({why}); give its CA as ca."
        return f"{where} cannot be reached ({why}); check the address and that it runs."


class _PointInTime:
    """A point in time, given back at the end."""

    def __init__(self, client: Elastic, index: str) -> None:
        self._client = client
        self.id = str(
            client.ask("POST", f"/{index}/_pit", keep_alive=KEEP_ALIVE, ignore_unavailable="false")[
                "id"
            ]
        )

    def __enter__(self) -> _PointInTime:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._client._once("DELETE", "/_pit", {"id": self.id}, {})
        except (elasticsearch.ApiError, elastic_transport.TransportError):
            return  # it ends by itself, soon


def _with_port(url: str) -> str:
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    if ":" not in host.rpartition("]")[2]:
        host += ":443" if scheme == "https" else ":80"
    return f"{scheme}://{host}{slash}{path}"


def _reason(text: str) -> str:
    """The innermost reason of an error's body, in one line."""
    try:
        error = json.loads(text)
    except ValueError:
        return " ".join(text.split())[:SHOWN]
    if isinstance(error, list):
        error = error[0] if error else {}
    error = error.get("error", error) if isinstance(error, dict) else {}
    if isinstance(error, str):
        return error[:SHOWN]
    reason = error.get("reason")
    for _ in range(10):
        inner = error.get("caused_by") or next(iter(error.get("root_cause") or []), None)
        if isinstance(reason, dict):
            inner = reason
        if not isinstance(inner, dict) or inner is error:
            break
        error = inner
        reason = error.get("reason") or reason
    return " ".join(str(reason or text).split())[:SHOWN]


def _missing_index(text: str) -> str:
    try:
        error = json.loads(text)["error"]
        return str(error.get("index") or error["root_cause"][0]["index"])
    except (ValueError, KeyError, TypeError, IndexError):
        return ""


__all__ = ["Elastic", "Expired", "without_user"]
