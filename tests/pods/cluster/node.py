"""Starts and ends a one-node Kubernetes: `with node.running(build()) as node: …`.

All its processes live in namespaces under one pid 1, which dies with the process that started it,
however that ends. The state is a temporary folder. The API server is reached from outside through
a relay on the loopback.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from cluster import certificates, images
from cluster.certificates import ADDRESS

HERE = Path(__file__).parent
CGROUPS = Path("/sys/fs/cgroup")
ETCD = "http://127.0.0.1:2379"
ETCD_PEER = "http://127.0.0.1:2380"


class CannotStart(Exception):
    """Which part did not come up, and the end of its log."""


@dataclass
class Node:
    built: Path
    state: Path
    pid: int
    api: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, for use from outside the node."""
        return self.state / "outside.kubeconfig"

    def command(self, *words: str | Path) -> list[str]:
        """A command inside the node's namespaces."""
        return [
            "nsenter",
            "-t",
            str(self.pid),
            "-m",
            "-n",
            "-p",
            "-u",
            "-i",
            "--",
            *map(str, words),
        ]

    @property
    def environment(self) -> dict[str, str]:
        own = (self.built / "bin", self.built / "runtime/usr/sbin", self.built / "runtime/usr/bin")
        path = ":".join(
            [*map(str, own), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        )
        return {**os.environ, "PATH": path}

    def start(self, name: str, *words: str | Path) -> None:
        with (self.state / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                self.command(*words),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests; the node is ended in order
            )

    def succeeds(self, *words: str | Path) -> bool:
        done = subprocess.run(self.command(*words), env=self.environment, capture_output=True)
        return done.returncode == 0

    def until(self, name: str, ready: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until a part is ready; raises `CannotStart` with the end of its log."""
        deadline = time.monotonic() + seconds
        while not ready():
            process = self.processes.get(name)
            if time.monotonic() > deadline or (process and process.poll() is not None):
                log = (self.state / f"{name}.log").read_text(errors="replace")
                raise CannotStart(f"{name} did not become ready:\n{log[-3000:]}")
            time.sleep(0.1)


@contextmanager
def running(built: Path) -> Iterator[Node]:
    """A node that is ready, with all images; ended and wiped at the end."""
    state = Path(tempfile.mkdtemp(prefix="ragprof-node-"))
    cgroup = f"/{state.name}"
    outer: subprocess.Popen[bytes] | None = None
    node: Node | None = None
    try:
        _write_configuration(built, state, cgroup)
        with (state / "node.log").open("wb") as log:
            # Dies with this process: pid 1 is killed, and with it everything in its namespace.
            outer = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--uts",
                 "--ipc", "--fork", "--kill-child=KILL", HERE / "node-init.sh", state,
                 built / "bin/pause"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        node = Node(built, state, _first_process(outer, built, state), "")
        _start_parts(node)
        yield node
    finally:
        _end(outer, node)
        _remove_cgroups(cgroup)
        shutil.rmtree(state, ignore_errors=True)


def _write_configuration(built: Path, state: Path, cgroup: str) -> None:
    certificates.make(state / "pki")
    (state / "cni").mkdir()
    (state / "volume-plugins").mkdir()
    seccomp = state / "kubelet/seccomp"
    seccomp.mkdir(parents=True)
    shutil.copy(HERE / "configuration/no-ptrace.json", seccomp)
    values = {"built": built, "state": state, "address": ADDRESS, "cgroup": cgroup}
    for file, out in (
        ("containerd.toml", state / "containerd.toml"),
        ("kubelet.yaml", state / "kubelet.yaml"),
        ("network.conflist", state / "cni/10-pods.conflist"),
    ):
        out.write_text(Template((HERE / "configuration" / file).read_text()).substitute(values))
    for folder in _cgroup_roots():
        (folder / cgroup[1:]).mkdir(exist_ok=True)


def _first_process(outer: subprocess.Popen[bytes], built: Path, state: Path) -> int:
    """The pid, outside, of the node's pid 1, once its namespaces are set up."""
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    deadline = time.monotonic() + 30
    while outer.poll() is None and time.monotonic() < deadline:
        for child in children.read_text().split():
            if os.path.realpath(f"/proc/{child}/exe") == str((built / "bin/pause").resolve()):
                return int(child)
        time.sleep(0.05)
    raise CannotStart(f"the node's namespaces: {(state / 'node.log').read_text()[-2000:]}")


def _start_parts(node: Node) -> None:
    pki, state = node.state / "pki", node.state
    node.start("containerd", "containerd", "--config", state / "containerd.toml")
    node.start(
        "etcd", "etcd", "--name", "e", "--data-dir", state / "etcd", "--unsafe-no-fsync",
        "--listen-client-urls", ETCD, "--advertise-client-urls", ETCD,
        "--listen-peer-urls", ETCD_PEER, "--initial-advertise-peer-urls", ETCD_PEER,
        "--initial-cluster", f"e={ETCD_PEER}",
    )  # fmt: skip
    node.start(
        "kube-apiserver", "kube-apiserver", f"--etcd-servers={ETCD}", "--bind-address=0.0.0.0",
        f"--advertise-address={ADDRESS}", "--secure-port=6443",
        f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP", "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        "--allow-privileged=true", "--profiling=false",
    )  # fmt: skip
    node.until("containerd", lambda: node.succeeds("ctr", "version"))
    images_tar = node.built / images.ARCHIVE
    if not node.succeeds("ctr", "-n", "k8s.io", "images", "import", images_tar):
        raise CannotStart(f"containerd refused {images_tar}: remove images.stamp beside it.")
    node.api = _relay(node)
    certificates.kubeconfig(pki, "admin", node.api, node.kubeconfig)
    node.until("kube-apiserver", lambda: _ready(node))
    node.start(
        "kubelet", "kubelet", f"--config={state}/kubelet.yaml",
        f"--kubeconfig={pki}/kubelet.kubeconfig", f"--root-dir={state}/kubelet",
        "--hostname-override=node1", f"--node-ip={ADDRESS}", f"--cert-dir={state}/kubelet-pki",
    )  # fmt: skip
    node.start(
        "kube-controller-manager", "kube-controller-manager",
        f"--kubeconfig={pki}/controllers.kubeconfig", "--use-service-account-credentials",
        f"--service-account-private-key-file={pki}/sa.key", f"--root-ca-file={pki}/ca.crt",
        "--leader-elect=false", f"--authentication-kubeconfig={pki}/controllers.kubeconfig",
        f"--authorization-kubeconfig={pki}/controllers.kubeconfig",
        f"--flex-volume-plugin-dir={state}/volume-plugins",
    )  # fmt: skip
    node.until("kubelet", lambda: _node_ready(node))


def _relay(node: Node) -> str:
    """The address, outside, that leads to the API server."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        (node.state / "relay.log").open("wb") as log,
    ):
        node.processes["relay"] = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "nsenter", "-t", str(node.pid), "-n",
             sys.executable, str(HERE / "relay.py"), str(listener.fileno()), ADDRESS, "6443"],
            pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        return f"https://127.0.0.1:{listener.getsockname()[1]}"


def _ready(node: Node) -> bool:
    return _get(node, "/readyz") == "ok"


def _node_ready(node: Node) -> bool:
    answer = _get(node, "/api/v1/nodes/node1")
    return '"type":"Ready"' in answer and '"reason":"KubeletReady"' in answer


def _get(node: Node, path: str) -> str:
    import ssl
    import urllib.error
    import urllib.request

    pki = node.state / "pki"
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    try:
        with urllib.request.urlopen(node.api + path, context=context, timeout=5) as answer:
            return answer.read().decode()
    except (OSError, urllib.error.HTTPError):
        return ""


def _end(outer: subprocess.Popen[bytes] | None, node: Node | None) -> None:
    if node is not None:
        os.kill(node.pid, signal.SIGKILL)  # and with pid 1 all processes of the node
        relay = node.processes.get("relay")
        if relay is not None:
            relay.kill()
    elif outer is not None:
        outer.kill()
    for process in [outer, *(node.processes.values() if node else ())]:
        if process is not None:
            process.wait(30)


def _cgroup_roots() -> list[Path]:
    """The hierarchies: one each for the controllers of version 1, else the one of version 2."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [folder for folder in CGROUPS.iterdir() if folder.is_dir() and not folder.is_symlink()]


def _remove_cgroups(cgroup: str) -> None:
    for root in _cgroup_roots():
        top = root / cgroup[1:]
        for _ in range(50):  # the kernel takes a moment to let go of processes that were killed
            for folder, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    continue
            if not top.exists():
                break
            time.sleep(0.1)
