"""Faults for the running demo: what people really ship, each with the truth about it.

A fault is a function of the running `Service`; it replaces or wraps one of its parts. Nothing of
the truth reaches the telemetry: investigation has to find it.
"""

from ragprof.demo.faults.catalogue import FAULTS, named
from ragprof.demo.faults.fault import OPERATION, SECONDS, Fault, FaultError, Truth
from ragprof.demo.faults.own import foreign, load, start

__all__ = [
    "FAULTS",
    "OPERATION",
    "SECONDS",
    "Fault",
    "FaultError",
    "Truth",
    "foreign",
    "load",
    "named",
    "start",
]
