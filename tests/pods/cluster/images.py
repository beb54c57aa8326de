"""Container images without a daemon and without a registry: one docker-archive for all of them.

- `app`: Debian's Python with a shell, and `apps/app.py`
- `noshell`: the same without a shell, as distroless images are
- `pyspy`: with py-spy on the PATH, as an administrator's image for debugging is
- `serving`: the light core of ragprof, and a service with the profiler's endpoint
- `pause`: pid 1 of every pod; also a container without Python
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
ARCHIVE = "images.tar"
NAMES = ("app", "noshell", "pyspy", "serving", "pause")
SHELLS = frozenset({"bin/sh", "bin/dash", "bin/rbash", "bin/bash", "usr/bin/sh", "usr/bin/dash"})
_UNREAD = ("usr/share/doc/", "usr/share/locale/", "usr/share/man/", "var/cache/", "var/lib/apt/")
_ACCOUNTS = "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/tmp:/bin/sh\n"
_CREATED = "2026-01-01T00:00:00Z"


def reference(name: str) -> str:
    """The name under which pods ask for an image; nobody pulls it."""
    return f"localhost/{name}:1"


def make(folder: Path, py_spy: Path) -> None:
    """Write `images.tar` into the folder, from `userland/`, `bin/pause` and this repository."""
    layers = folder / "layers"
    shutil.rmtree(layers, ignore_errors=True)
    layers.mkdir()
    userland, apps, light = folder / "userland", HERE / "apps", folder / "light"
    shutil.rmtree(light, ignore_errors=True)
    _light_core(userland, light)

    python = _layer(layers / "python.tar", lambda tar: _userland(tar, userland))
    shell = _layer(layers / "shell.tar", lambda tar: _only(tar, userland, SHELLS))
    app = _layer(layers / "app.tar", lambda tar: _tree(tar, apps, "app"))
    spy = _layer(layers / "py-spy.tar", lambda tar: tar.add(py_spy, "usr/local/bin/py-spy"))
    core = _layer(layers / "core.tar", lambda tar: _tree(tar, light, "opt/light"))
    pause = _layer(layers / "pause.tar", lambda tar: tar.add(folder / "bin/pause", "pause"))
    run = {"Cmd": ["python3", "/app/app.py"]}
    serve = {"Cmd": ["python3", "/app/serving.py"]}
    path = ["PYTHONPATH=/opt/light"]
    parts: dict[str, tuple[list[Path], dict[str, Any]]] = {
        "app": ([python, shell, app], run),
        "noshell": ([python, app], run),
        "pyspy": ([python, shell, spy], {"Cmd": ["sleep", "infinity"]}),
        "serving": ([python, shell, app, core], {**serve, "Env": path}),
        "pause": ([pause], {"Entrypoint": ["/pause"]}),
    }
    with tarfile.open(folder / ARCHIVE, "w") as archive:
        manifest = [_image(archive, reference(name), *parts[name]) for name in NAMES]
        for path_ in layers.glob("*.tar"):
            archive.add(path_, f"{_digest(path_)}/layer.tar")
        _bytes(archive, "manifest.json", json.dumps(manifest).encode())
    shutil.rmtree(layers)
    shutil.rmtree(light)


def _light_core(userland: Path, into: Path) -> None:
    """What `pip install ragprof` gives, and a server, for the Python of the image."""
    version = (userland / "usr/bin/python3").readlink().name.removeprefix("python")
    uv = [Path(sys.executable).with_name("uv"), "--quiet", "pip", "install"]
    for_image = ["--python-version", version, "--target", into]
    subprocess.run([*uv, *for_image, REPOSITORY, "starlette", "uvicorn"], check=True)


def _layer(path: Path, fill: Callable[[tarfile.TarFile], object]) -> Path:
    with tarfile.open(path, "w") as tar:
        fill(tar)
    return path


def _userland(tar: tarfile.TarFile, userland: Path) -> None:
    for path in sorted(userland.rglob("*")):
        name = str(path.relative_to(userland))
        if name not in SHELLS and not f"{name}/".startswith(_UNREAD):
            tar.add(path, name, recursive=False)
    for name, mode in (("tmp", 0o1777), ("var/tmp", 0o1777), ("proc", 0o755), ("root", 0o700)):
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode = tarfile.DIRTYPE, mode
        tar.addfile(entry)
    _bytes(tar, "etc/passwd", _ACCOUNTS.encode())


def _only(tar: tarfile.TarFile, root: Path, names: Iterable[str]) -> None:
    for name in sorted(names):
        if (root / name).exists():
            tar.add(root / name, name)


def _tree(tar: tarfile.TarFile, root: Path, at: str) -> None:
    for path in sorted(root.rglob("*")):
        if "__pycache__" not in path.parts:
            tar.add(path, f"{at}/{path.relative_to(root)}", recursive=False)


def _image(
    archive: tarfile.TarFile, name: str, layers: list[Path], config: dict[str, Any]
) -> dict[str, Any]:
    digests = [_digest(layer) for layer in layers]
    environment = ["PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin", *config.get("Env", [])]
    document = {
        "architecture": "arm64" if os.uname().machine == "aarch64" else "amd64",
        "os": "linux",
        "created": _CREATED,
        "config": {**config, "Env": environment},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": _CREATED, "created_by": "ragprof tests"} for _ in digests],
    }
    content = json.dumps(document).encode()
    file = f"{hashlib.sha256(content).hexdigest()}.json"
    _bytes(archive, file, content)
    members = [f"{digest}/layer.tar" for digest in digests]
    return {"Config": file, "RepoTags": [name], "Layers": members}


def _bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    tar.addfile(entry, io.BytesIO(content))


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
