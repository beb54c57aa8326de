"""The connection of prometheus-api-client under our own client: its session carries the calls."""

from __future__ import annotations

from typing import Any

import httpx
import requests


class SessionTransport(httpx.BaseTransport):
    """Sends by the session of a `prometheus_api_client.PrometheusConnect`."""

    def __init__(self, connect: Any) -> None:
        self._session: requests.Session = connect._session
        self._headers, self._auth = dict(connect.headers or {}), connect.auth
        self._timeout = connect._timeout

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        own = {k: v for k, v in request.headers.items() if k not in ("host", "content-length")}
        try:
            reply = self._session.request(
                request.method,
                str(request.url),
                data=request.read(),
                headers={**own, **self._headers},
                auth=self._auth,
                verify=self._session.verify,
                timeout=self._timeout or request.extensions["timeout"]["read"],
                allow_redirects=False,
            )
        except requests.Timeout as error:
            raise httpx.ReadTimeout(str(error), request=request) from None
        except requests.RequestException as error:
            kind = httpx.ConnectError if "connection" in str(error) else httpx.ReadError
            raise kind(str(error)[:300], request=request) from None
        coded = ("content-encoding", "content-length", "transfer-encoding")  # it has decoded
        headers = [(k, v) for k, v in reply.headers.items() if k.lower() not in coded]
        return httpx.Response(reply.status_code, headers=headers, content=reply.content)

    def close(self) -> None:
        """The session stays open: it is the caller's."""
