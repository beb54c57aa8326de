"""Which service each process is: from the environment, its OpenTelemetry resource, its parents."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ragprof.capturing import connections


class Services:
    """Learns names as they come in. Thread-safe.

    `changed(service, process, version_before, version)` is called when a service shows a version
    that differs from its last one.
    """

    def __init__(self, changed: Callable[[str, int, str, str], None]) -> None:
        self._changed = changed
        self._names: dict[int, str] = {}
        self._versions: dict[str, str] = {}
        self._root_of: dict[int, int] = {}  # process -> the child of the recorder above it
        self._default: dict[int, str] = {}  # child of the recorder -> name given at its start
        self._lock = threading.Lock()

    def started(self, root: int, service: str) -> None:
        """A child of the recorder; `service` may be empty."""
        with self._lock:
            self._root_of[root] = root
            if service:
                self._default[root] = service

    def below(self, root: int, pids: list[int]) -> None:
        """These processes descend from the child `root`."""
        with self._lock:
            for pid in pids:
                self._root_of.setdefault(pid, root)

    def resource_seen(self, resource: dict[str, str], process: int) -> None:
        """A resource of OTLP data; `process` is its sender, 0 unknown."""
        name = resource.get("service.name", "")
        own = resource.get("process.pid", "")
        pid = process or (int(own) if own.isdigit() else 0)
        self.learn(pid, name, resource.get("service.version", ""))

    def learn(self, pid: int, name: str, version: str = "") -> None:
        if not name:
            return
        with self._lock:
            if pid:
                self._names[pid] = name
            before = self._versions.get(name, "")
            if version:
                self._versions[name] = version
        if version and before and version != before:
            self._changed(name, pid, before, version)

    def of(self, pid: int) -> str:
        """The service of a process, or empty.

        A process that never said it takes the name its child was started with, else the only
        name among the processes of the same child.
        """
        with self._lock:
            if pid in self._names:
                return self._names[pid]
            root = self._root_of.get(pid)
            if root is None:
                return ""
            if root in self._default:
                return self._default[root]
            relatives = {
                name for other, name in self._names.items() if self._root_of.get(other) == root
            }
            return relatives.pop() if len(relatives) == 1 else ""

    def of_port(self, port: int, pids: list[int]) -> str:
        """The service that listens on a port of this machine, as far as is known."""
        owner = connections.listener(port, pids)
        return self.of(owner) if owner else ""
