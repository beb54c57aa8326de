"""papermill's engine for reports: own kernel, one deadline, and honest marks on what failed."""

from __future__ import annotations

from typing import Any

import nbformat
from papermill.engines import NBClientEngine, papermill_engines

NAME = "ragprof"


class Engine(NBClientEngine):  # type: ignore[misc]  # papermill has no types
    """nbclient on the kernel manager of `watched`, which is told each cell and gives its time."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, watched: Any = None, **more: Any
    ) -> None:
        start = nb_man.cell_start

        def cell_start(cell: Any, cell_index: int = 0, **rest: Any) -> None:
            watched.begin(cell_index, nb_man.nb.cells)
            start(cell, cell_index, **rest)

        nb_man.cell_start = cell_start
        try:
            super().execute_managed_notebook(
                nb_man,
                kernel_name,
                kernel_manager_class=watched.kernels,
                timeout_func=watched.seconds,
                shutdown_kernel="immediate",
                **more,
            )
        except BaseException as error:
            _mark(nb_man.nb, watched.cell, error)  # papermill calls such a cell completed
            raise


def register() -> None:
    """Make the engine known to papermill."""
    papermill_engines.register(NAME, Engine)


def _mark(notebook: Any, index: int, error: BaseException) -> None:
    notebook.metadata.papermill["exception"] = True
    if not 0 <= index < len(notebook.cells):
        return
    cell = notebook.cells[index]
    cell.metadata.papermill.update(exception=True, status="failed")
    if cell.cell_type == "code" and not any(o.output_type == "error" for o in cell.outputs):
        text = (str(error).splitlines() or [""])[0]
        cell.outputs.append(
            nbformat.v4.new_output(  # type: ignore[no-untyped-call]
                "error", ename=type(error).__name__, evalue=text, traceback=[text]
            )
        )
