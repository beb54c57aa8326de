"""Real servers for tests: started on free loopback ports in their own folders, stopped by pid.

Programs come from the system and from the cache that `install.sh` fills. Every `start_…` function
returns when the server answers; it raises `Unstartable` with the end of the server's log.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("RAGPROF_BACKENDS") or Path.home() / ".cache/ragprof/backends")
ELASTICSEARCH_8, ELASTICSEARCH_9 = "8.19.5", "9.2.0"
JAVA_FOR = {"8": 17, "9": 21}  # major version of Elasticsearch -> oldest Java
NOBODY = 65534
STARTS = 240.0  # seconds until a server must answer, on a loaded machine
TRIES = 3  # another process may take a port between our look and the server's bind


class Unstartable(Exception):
    """A server that is missing or does not start; says what to do."""


@dataclass
class Server:
    """A server that answers at `url`. `folder` holds its configuration, data and log."""

    url: str
    folder: Path = Path()
    ports: dict[str, int] = field(default_factory=dict)
    pid: int = 0  # of its guard; 0: not ours
    _held: io.FileIO | None = field(default=None, repr=False)

    def stop(self) -> None:
        """Give the server up; it ends when nobody else uses it, and this waits for that."""
        if self._held is None:
            return
        self._held.close()
        self._held = None
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def release(self) -> None:
        """Give a shared server up without waiting for its end."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def log(self, characters: int = 3000) -> str:
        """The end of what the server printed."""
        with contextlib.suppress(OSError):
            return (self.folder / "log").read_text(errors="replace")[-characters:]
        return ""

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def start_prometheus(
    folder: Path, config: str = "", *, flags: Sequence[str] = (), remove: bool = False
) -> Server:
    """Prometheus with exemplars, native histograms, remote write and the admin API.

    `config` is YAML; the default scrapes nothing. Data lie in FOLDER/data, for promtool.
    """
    program = find("prometheus")
    _write(folder / "prometheus.yml", config or "global: {scrape_interval: 1s}\n")

    def command(ports: Mapping[str, int]) -> list[str]:
        return [
            program,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{ports['http']}",
            "--enable-feature=exemplar-storage,native-histograms",
            "--web.enable-remote-write-receiver",
            "--web.enable-admin-api",
            "--web.enable-lifecycle",
            *flags,
        ]

    return _start(folder, command, ("http",), lambda s: answers(f"{s.url}/-/ready"), remove=remove)


ALERTMANAGER_CONFIG = """\
route: {receiver: nobody, group_wait: 1s, group_interval: 1s}
receivers: [{name: nobody}]
"""


def start_alertmanager(folder: Path, config: str = "", *, remove: bool = False) -> Server:
    """Alertmanager, alone; `config` is YAML, the default notifies nobody."""
    program = find("prometheus-alertmanager", "alertmanager")
    _write(folder / "alertmanager.yml", config or ALERTMANAGER_CONFIG)

    def command(ports: Mapping[str, int]) -> list[str]:
        return [
            program,
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'data'}",
            "--cluster.listen-address=",
            f"--web.listen-address=127.0.0.1:{ports['http']}",
        ]

    return _start(folder, command, ("http",), lambda s: answers(f"{s.url}/-/ready"), remove=remove)


def start_elasticsearch(
    version: str = ELASTICSEARCH_8,
    settings: str = "",
    *,
    heap: str = "512m",
    java_options: str = "-XX:TieredStopAtLevel=1",
) -> Server:
    """One node of Elasticsearch without security, in a temporary folder that goes with it.

    It has indices, mappings, `_bulk`, search, point in time, slices, aggregations and index
    templates; it lacks `GET /`, ES|QL, reindex and data streams. `settings` is more YAML. The
    default `java_options` start it with half the work; measure with "".
    """
    home = CACHE / f"elasticsearch-{version}"
    if not (home / "bin/elasticsearch").is_file():
        raise _missing(f"Elasticsearch {version} is not in {CACHE}")
    java = find_java(JAVA_FOR[version.partition(".")[0]])
    folder = Path(tempfile.mkdtemp(prefix="ragprof-elasticsearch-"))
    # Linked, because the server's user may not be allowed to read the cache.
    shutil.copytree(home, folder / "home", copy_function=_link)
    for name in ("config", "data", "logs", "tmp"):
        (folder / name).mkdir()
    shutil.copytree(home / "config", folder / "config", dirs_exist_ok=True)
    user = _unprivileged(folder)

    def command(ports: Mapping[str, int]) -> list[str]:
        _write(
            folder / "config/elasticsearch.yml",
            "cluster.name: ragprof-tests\n"
            "discovery.type: single-node\n"
            "xpack.security.enabled: false\n"
            "cluster.routing.allocation.disk.threshold_enabled: false\n"
            "network.host: 127.0.0.1\n"
            f"http.port: {ports['http']}\ntransport.port: {ports['transport']}\n"
            f"path.data: {folder / 'data'}\npath.logs: {folder / 'logs'}\n{settings}\n",
        )
        return [*user, str(folder / "home/bin/elasticsearch")]

    return _start(
        folder,
        command,
        ("http", "transport"),
        lambda s: answers(f"{s.url}/_cluster/health?wait_for_status=yellow&timeout=2s"),
        env={
            "ES_JAVA_HOME": java,
            "ES_JAVA_OPTS": f"-Xms{heap} -Xmx{heap} {java_options}",
            "ES_PATH_CONF": str(folder / "config"),
            "ES_TMPDIR": str(folder / "tmp"),
            "HOME": str(folder / "tmp"),
        },
        remove=True,
    )


JAEGER_CONFIG = """\
service:
  extensions: [jaeger_storage, jaeger_query]
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}
extensions:
  jaeger_query:
    storage: {{traces: memory}}
    http: {{endpoint: "127.0.0.1:{http}"}}
    grpc: {{endpoint: "127.0.0.1:{query_grpc}"}}
  jaeger_storage:
    backends: {{memory: {{memory: {{max_traces: 100000}}}}}}
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{otlp_grpc}"}}
      http: {{endpoint: "127.0.0.1:{otlp_http}"}}
exporters:
  jaeger_storage_exporter: {{trace_storage: memory}}
"""


def start_jaeger(folder: Path, config: str = JAEGER_CONFIG, *, remove: bool = False) -> Server:
    """Jaeger v2 with memory storage. Ports: http (query and UI), otlp_http, otlp_grpc.

    `config` is a str.format template over those ports and query_grpc.
    """
    program = CACHE / "jaeger"
    if not program.is_file():
        raise _missing(f"Jaeger is not in {CACHE}")

    def command(ports: Mapping[str, int]) -> list[str]:
        _write(folder / "jaeger.yaml", config.format(**ports))
        return [str(program), "--config", str(folder / "jaeger.yaml")]

    return _start(
        folder,
        command,
        ("http", "query_grpc", "otlp_http", "otlp_grpc"),
        lambda s: answers(f"{s.url}/api/services") and listens(s.ports["otlp_http"]),
        remove=remove,
    )


def start_collector(
    folder: Path, config: Callable[[Mapping[str, int]], str], *, remove: bool = False
) -> Server:
    """An OpenTelemetry Collector, which Jaeger's program is, with the components in that.

    `config` makes YAML of the ports otlp_http and otlp_grpc; its OTLP receiver takes them.
    """
    program = CACHE / "jaeger"
    if not program.is_file():
        raise _missing(f"Jaeger is not in {CACHE}")

    def command(ports: Mapping[str, int]) -> list[str]:
        _write(folder / "collector.yaml", config(ports))
        return [str(program), "--config", str(folder / "collector.yaml")]

    return _start(
        folder,
        command,
        ("otlp_http", "otlp_grpc"),
        lambda s: listens(s.ports["otlp_http"]),
        remove=remove,
    )


def start_rsyslog(folder: Path, config: str, *, remove: bool = False) -> Server:
    """rsyslogd with `config` (its own language); FOLDER/work is its working directory.

    It has no port of its own: `url` is empty, and ready means that it wrote its pid file.
    """
    program = find("rsyslogd")
    (folder / "work").mkdir(parents=True, exist_ok=True)
    _write(folder / "rsyslog.conf", f'global(workDirectory="{folder / "work"}")\n{config}\n')
    check = subprocess.run(
        [program, "-N1", "-f", str(folder / "rsyslog.conf")],
        capture_output=True,
        text=True,
        timeout=STARTS,
    )
    if check.returncode:
        raise Unstartable(f"rsyslog does not take its configuration: {check.stderr[-2000:]}")
    pid = folder / "rsyslog.pid"
    pid.unlink(missing_ok=True)

    def command(ports: Mapping[str, int]) -> list[str]:
        return [program, "-n", "-f", str(folder / "rsyslog.conf"), "-i", str(pid)]

    return _start(folder, command, (), lambda s: pid.exists(), remove=remove)


@contextlib.contextmanager
def shared(run: Path, name: str, start: Callable[[], Server]) -> Iterator[Server]:
    """One server for all workers of a test run; `run` is a folder that only they share.

    The first worker starts it, the last one ends it. What tests write into it must have names of
    their own.
    """
    state = run / f"{name}.server"
    with (run / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = _join(state)
        if server is None:
            server = start()
            content = {"url": server.url, "folder": str(server.folder), "ports": server.ports}
            state.write_text(json.dumps({**content, "pid": server.pid}))
    try:
        yield server
    finally:
        server.release()


def _join(state: Path) -> Server | None:
    """The server that another worker started, with a lock on it; None when it is gone."""
    try:
        known = json.loads(state.read_text())
        held = io.FileIO(Path(known["folder"]) / "users", "r")
    except (OSError, ValueError):
        return None
    fcntl.flock(held, fcntl.LOCK_SH)  # waits while its guard ends it
    if not answers_pid(known["pid"]):
        held.close()
        return None
    return Server(known["url"], Path(known["folder"]), known["ports"], known["pid"], held)


# How a server is started


def _start(
    folder: Path,
    command: Callable[[Mapping[str, int]], list[str]],
    names: Sequence[str],
    ready: Callable[[Server], bool],
    *,
    env: Mapping[str, str] | None = None,
    remove: bool = False,
) -> Server:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "users").touch()
    for last in range(TRIES - 1, -1, -1):
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        url = f"http://127.0.0.1:{ports['http']}" if "http" in ports else ""
        held = io.FileIO(folder / "users", "r")
        fcntl.flock(held, fcntl.LOCK_SH)
        with (folder / "log").open("ab") as log:
            guard = subprocess.Popen(
                [
                    *(sys.executable, "-S", str(HERE / "guard.py"), str(folder)),
                    *("REMOVE" if remove else "KEEP", *command(ports)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
                cwd=folder,
                start_new_session=True,
            )
        server = Server(url, folder, ports, guard.pid, held)
        if _became_ready(server, guard, ready):
            return server
        text = server.log()
        held.close()
        guard.wait()
        if not last or "address already in use" not in text.lower():
            break
    if remove:
        shutil.rmtree(folder, ignore_errors=True)
    raise Unstartable(f"{command(ports)[0]} did not start within {STARTS:.0f} s:\n{text}")


def _became_ready(
    server: Server, guard: subprocess.Popen[bytes], ready: Callable[[Server], bool]
) -> bool:
    wait(lambda: ready(server) or guard.poll() is not None)
    return guard.poll() is None and ready(server)


def wait(condition: Callable[[], bool], seconds: float = STARTS) -> bool:
    """Whether a condition came true in time."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if condition():
            return True
        time.sleep(0.1)
    return False


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as r:
            return bool(r.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


def elasticsearch_major(url: str) -> str:
    """The first digit of a server's version; `GET /` is not to be had everywhere."""
    with urllib.request.urlopen(f"{url}/_nodes?filter_path=nodes.*.version", timeout=30) as reply:
        nodes = json.load(reply)["nodes"]
    return str(next(iter(nodes.values()))["version"])[0]


def answers_pid(pid: int) -> bool:
    """Whether a process lives."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def listens(port: int) -> bool:
    """Whether somebody accepts connections on a port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def find(*names: str) -> str:
    """The path of a program, by any of its names."""
    system = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])
    for name in names:
        path = shutil.which(name, path=system)
        if path:
            return path
    raise _missing(f"{names[0]} is not on the PATH")


def find_java(oldest: int) -> str:
    """The home of the oldest Java that is new enough."""
    homes = [os.environ.get("ES_JAVA_HOME", ""), os.environ.get("JAVA_HOME", "")]
    homes += [str(path) for path in sorted(Path("/usr/lib/jvm").glob("*"))]
    found = []
    for home in filter(None, homes):
        with contextlib.suppress(OSError):
            match = re.search(r'JAVA_VERSION="(\d+)', (Path(home) / "release").read_text())
            if match and int(match[1]) >= oldest and (Path(home) / "bin/java").exists():
                found.append((int(match[1]), home))
    if not found:
        raise Unstartable(
            f"Elasticsearch needs Java {oldest} or newer: install one under /usr/lib/jvm "
            "or set ES_JAVA_HOME"
        )
    return min(found)[1]


def _missing(what: str) -> Unstartable:
    return Unstartable(f"{what}: run tests/backends/install.sh")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _unprivileged(folder: Path) -> list[str]:
    """What to put before a command that refuses root; gives it the folder's writable parts."""
    if os.geteuid():
        return []
    folder.chmod(0o755)
    for name in ("config", "data", "logs", "tmp"):
        for path in [folder / name, *(folder / name).rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
    return [find("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
