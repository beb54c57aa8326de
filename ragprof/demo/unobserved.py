"""What the demo's services keep out of their own telemetry: scrapes, probes, the fault switch.

A line or span of the switch would tell an investigation when and what was changed.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

UNOBSERVED = ("/metrics", "/health", "/admin/fault", "/admin/delay", "/admin/refuse")


def unobserved(scope: MutableMapping[str, Any]) -> bool:
    """Whether a request is left out, for `FastAPI(telemetry={"exclude": unobserved})`."""
    return scope.get("path") in UNOBSERVED
