"""Instant queries to a Prometheus, with the standard library only."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ragprof.errors import RagprofError

MAX_ANSWER = 16 << 20  # bytes


class PrometheusError(RagprofError):
    """Prometheus does not answer, or refuses a query."""


@dataclass(frozen=True)
class Prometheus:
    """Where Prometheus is: `url` as in a browser; `headers` for its authentication.

    `matchers` are label values that every series must have (`{"job": "rag-api"}`).
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    matchers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 10.0

    def __post_init__(self) -> None:
        if urllib.parse.urlsplit(self.url).scheme not in ("http", "https"):
            raise PrometheusError(
                f"{self.url!r} is no address of a Prometheus: give http://HOST:9090."
            )

    def selector(self) -> str:
        """The matchers as PromQL, to stand between braces."""
        return ",".join(f"{name}={json.dumps(value)}" for name, value in self.matchers.items())

    def query(self, expression: str, at: datetime) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series that `expression` gives at one instant; blocks."""
        form = {"query": expression, "time": f"{at.timestamp():.3f}"}
        request = urllib.request.Request(  # noqa: S310  # the scheme was checked
            self.url.rstrip("/") + "/api/v1/query",
            data=urllib.parse.urlencode(form).encode(),
            headers=dict(self.headers),
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:  # noqa: S310
                body = response.read(MAX_ANSWER + 1)
        except urllib.error.HTTPError as error:
            raise PrometheusError(
                f"Prometheus at {self.url} refused {expression!r}: {_reason(error)}"
            ) from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise PrometheusError(
                f"Prometheus at {self.url} does not answer ({reason}): check that it runs there."
            ) from None
        if len(body) > MAX_ANSWER:
            raise PrometheusError(f"Prometheus answered {expression!r} with more than 16 MiB.")
        try:
            result = json.loads(body)["data"]["result"]
            return [(each["metric"], float(each["value"][1])) for each in result]
        except (ValueError, KeyError, TypeError, IndexError):
            raise PrometheusError(f"What answers at {self.url} is not a Prometheus.") from None


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read(4096))["error"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"HTTP {error.code}"
