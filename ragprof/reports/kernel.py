"""The kernel of a report: this Python, no kernelspec, no port, nothing written to the home folder.

The process dies with the one that started it, also when that one is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Any

import ragprof

REPORT_FOLDER = "RAGPROF_REPORT_FOLDER"
"""The variable that tells a notebook where its report goes."""

_PR_SET_PDEATHSIG = 1
_SOCKET_PATH = 90  # a Unix socket's path has at most 107 bytes, the kernel adds "-PORT"
_START = (
    "import sys; sys.path[:] = [p for p in sys.path if p] + [sys.argv.pop(1)]; "
    "from ragprof.reports.kernel import main; main()"
)


def manager_class(folder: Path, report: Path) -> type[Any]:
    """A jupyter_client kernel manager whose one kernel is this Python, with its files in `folder`.

    The notebook finds the folder of its report in the variable `REPORT_FOLDER`.

    Sockets are files in that folder, so that two reports never meet on a port.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    spec = KernelSpec(
        argv=[
            sys.executable,
            "-c",
            _START,
            str(Path(ragprof.__file__).parent.parent),
            "-f",
            "{connection_file}",
            "--HistoryManager.enabled=False",
        ],
        display_name="Python 3",
        language="python",
        env={
            "IPYTHONDIR": str(folder / "ipython"),
            "JUPYTER_RUNTIME_DIR": str(folder),
            REPORT_FOLDER: str(report),
            "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", str(folder / "matplotlib")),
        },
    )

    class Manager(AsyncKernelManager):
        kernels: list[int] = []  # noqa: RUF012  # shared on purpose: the pids that were started

        def __init__(self, **kwargs: Any) -> None:
            kwargs.pop("kernel_name", None)
            super().__init__(**kwargs)
            self.connection_file = str(folder / "kernel.json")
            socket = folder / "s"
            if len(os.fsencode(socket)) < _SOCKET_PATH:
                self.transport, self.ip = "ipc", str(socket)

        @property
        def kernel_spec(self) -> KernelSpec:
            return spec

        async def _async_post_start_kernel(self, **kwargs: Any) -> None:
            process = getattr(self.provisioner, "process", None)
            if process is not None:
                self.kernels.append(process.pid)
            await super()._async_post_start_kernel(**kwargs)

        post_start_kernel = _async_post_start_kernel

    Manager.kernels = []
    return Manager


def end(pids: list[int]) -> None:
    """Kill kernels that are still there, with what their cells started."""
    for pid in pids:
        try:
            os.killpg(pid, signal.SIGKILL)  # a kernel leads its own process group
        except (ProcessLookupError, PermissionError):
            continue


def main() -> None:
    """Run a kernel that ends when its parent ends."""
    parent = int(os.environ.get("JPY_PARENT_PID", "0"))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent and os.getppid() != parent:  # it ended before we asked
        sys.exit(1)
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()
