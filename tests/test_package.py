"""The package as a whole: public names, and a command line that starts fast and light."""

from __future__ import annotations

import pkgutil
import resource
import subprocess
import sys

import ragprof

HEAVY = ("pandas", "pyarrow", "duckdb", "numpy", "matplotlib", "opentelemetry")


def test_no_public_name_is_that_of_a_module() -> None:
    # Importing the module would rebind the name to it.
    modules = {module.name for module in pkgutil.iter_modules(ragprof.__path__)}
    assert {"recording", "tables", "cli"} <= modules
    assert set(ragprof.__all__) & modules == set()


def test_public_names_are_listed_and_unknown_ones_refused() -> None:
    assert dir(ragprof) == sorted(ragprof.__all__)
    assert callable(ragprof.open)
    assert not hasattr(ragprof, "nothing_of_this_name")


def test_a_name_whose_extra_is_missing_names_the_extra() -> None:
    code = (
        "import sys\nsys.modules['numpy'] = None\nimport ragprof\n"
        "try:\n    ragprof.profile\nexcept ModuleNotFoundError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ragprof.profile needs 'numpy'" in done.stdout, done.stderr
    assert "ragprof[lab]" in done.stdout


def test_help_is_fast_and_light() -> None:
    code = (
        "import sys\nfrom ragprof.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    # CPU time, which is the wall time of an idle machine: on a busy one nothing answers at once.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "LOADED []" in done.stdout, done.stdout + done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3
