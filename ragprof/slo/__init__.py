"""Objectives, error budgets, burn rates, and alert rules replayed on history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragprof.slo.monitor import ErrorBudgetMonitor

__all__ = ["ErrorBudgetMonitor"]


def __getattr__(name: str) -> Any:
    if name == "ErrorBudgetMonitor":  # loads pandas and Arrow
        from ragprof.slo.monitor import ErrorBudgetMonitor

        return ErrorBudgetMonitor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
