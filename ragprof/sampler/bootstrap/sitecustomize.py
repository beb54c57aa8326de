"""Starts the sampler in a process that knows nothing of it, then the `sitecustomize` that was next.

Python runs one `sitecustomize`, the first on the path; a recorder puts this folder there.
"""

import importlib.machinery
import importlib.util
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
_NAME = "_ragprof_sampler"


def _start() -> None:
    spool = os.environ.get("RAGPROF_SPOOL")
    if not spool or _NAME in sys.modules:
        return
    if any("multiprocessing.resource_tracker" in word for word in sys.orig_argv):
        return  # a helper process of the standard library
    os.environ["RAGPROF_BOOTSTRAP"] = _HERE
    package = os.path.dirname(_HERE)
    spec = importlib.util.spec_from_file_location(
        _NAME, os.path.join(package, "__init__.py"), submodule_search_locations=[package]
    )
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    spec.loader.exec_module(module)
    module.start(
        spool,
        float(os.environ.get("RAGPROF_SAMPLER_HZ", "100")),
        float(os.environ.get("RAGPROF_SAMPLER_BUDGET", "0.01")),
    )


def _chain() -> None:
    """Run the next `sitecustomize` on the path under its own name, as Python would have."""
    path = [entry for entry in sys.path if os.path.abspath(entry or ".") != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


try:
    _start()
except Exception as error:  # noqa: BLE001  # the application goes on without us
    print(f"ragprof: the sampler did not start: {error}", file=sys.stderr)
_chain()
