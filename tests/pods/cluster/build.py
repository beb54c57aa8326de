"""Builds what a node needs, once, into the cache folder: `python -m cluster.build`.

Kubernetes and etcd come from their Go modules at the versions and checksums in `programs/`, the
container runtime from Debian's packages (unpacked, not installed), py-spy from this environment.
Each part has a stamp with a checksum of what it is made from, so a change rebuilds that part.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from cluster import images

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
REPOSITORY = HERE.parents[2]
CACHE = Path.home() / ".cache/ragprof/kubernetes"
RUNTIME = ("containerd", "runc", "containernetworking-plugins")
USERLAND = ("python3", "dash", "coreutils", "gzip", "util-linux")
COMMANDS = ("kube-apiserver", "kubelet", "kube-controller-manager")


class CannotBuild(Exception):
    """What is missing, and how to get it."""


def build(folder: Path = CACHE) -> Path:
    """Everything `node.start` needs; returns the folder. Quick when it is there already."""
    for program, hint in (
        ("go", "Go 1.24 or newer"),
        ("apt-get", "Debian or a system made from it"),
        ("unshare", "the package util-linux"),
        ("openssl", "the package openssl"),
        ("ip", "the package iproute2"),
    ):
        if shutil.which(program) is None:
            raise CannotBuild(f"the pod tests need {program!r}: install {hint}.")
    if os.geteuid() != 0:
        raise CannotBuild("the pod tests make namespaces and cgroups: run them as root.")
    folder.mkdir(parents=True, exist_ok=True)
    modules = sorted(PROGRAMS.glob("*/*"))
    _once(folder, "programs", modules, lambda: _programs(folder))
    own = [HERE / "build.py"]
    _once(folder, "runtime", own, lambda: _debian(folder / "runtime", RUNTIME, simulate=False))
    _once(folder, "userland", own, lambda: _debian(folder / "userland", USERLAND, simulate=True))
    light = [
        *REPOSITORY.glob("ragprof/service/**/*.py"),
        *REPOSITORY.glob("ragprof/sampler/**/*.py"),
    ]
    sources = [
        *own,
        HERE / "images.py",
        *HERE.glob("apps/*"),
        REPOSITORY / "pyproject.toml",
        *light,
    ]
    _once(folder, "images", sources, lambda: images.make(folder, py_spy()))
    return folder


def py_spy() -> Path:
    """py-spy of the environment that runs the tests."""
    return Path(sys.executable).with_name("py-spy")


def _once(folder: Path, name: str, made_from: Iterable[Path], make: Callable[[], None]) -> None:
    digest = hashlib.sha256()
    for path in sorted(made_from):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    stamp = folder / f"{name}.stamp"
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    began = time.monotonic()
    print(f"pod tests: building {name} …", file=sys.stderr, flush=True)
    make()
    stamp.write_text(digest.hexdigest())
    print(f"pod tests: {name} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def _programs(folder: Path) -> None:
    binaries = folder / "bin"
    binaries.mkdir(exist_ok=True)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}

    def go_build(module: str, linker: str, out: Path, package: str) -> None:
        subprocess.run(
            ["go", "build", "-trimpath", "-ldflags", linker, "-o", str(out), package],
            cwd=PROGRAMS / module,
            env=environment,
            check=True,
        )

    go_build("etcd", "-s -w", binaries / "etcd", ".")
    go_build("pause", "-s -w", binaries / "pause", ".")
    version = _required(PROGRAMS / "kubernetes/go.mod", "k8s.io/kubernetes")
    major, minor = version.removeprefix("v").split(".")[:2]
    said = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    linker = "-s -w" + "".join(
        f" -X {package}.{name}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for name, value in said.items()
    )
    for command in COMMANDS:
        go_build("kubernetes", linker, binaries / command, f"k8s.io/kubernetes/cmd/{command}")


def _required(go_mod: Path, module: str) -> str:
    words = go_mod.read_text().split()
    return words[words.index(module) + 1]


def _debian(into: Path, packages: tuple[str, ...], *, simulate: bool) -> None:
    """Unpack Debian packages; with `simulate`, all that they need on an empty system as well."""
    shutil.rmtree(into, ignore_errors=True)
    downloads = into.with_name(into.name + ".debs")
    shutil.rmtree(downloads, ignore_errors=True)
    (downloads / "partial").mkdir(parents=True)
    (downloads / "status").touch()
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root"]
    if simulate:
        command += [
            "-o", f"Dir::State::status={downloads}/status",
            "-o", f"Dir::Cache::archives={downloads}",
            "-o", "Debug::NoLocking=1", "--no-install-recommends", "--yes", "--download-only",
            "install", *packages,
        ]  # fmt: skip
    else:
        command += ["download", *packages]
    try:
        subprocess.run(command, cwd=downloads, check=True)
    except subprocess.CalledProcessError as error:
        raise CannotBuild(
            f"apt could not download {', '.join(packages)}: run `apt-get update`, then again."
        ) from error
    into.mkdir()
    for package in sorted(downloads.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, into], check=True)
    shutil.rmtree(downloads)


if __name__ == "__main__":
    try:
        print(build())
    except CannotBuild as problem:
        raise SystemExit(str(problem)) from None
