"""All servers of the tests, for use by hand: `make backends`, or some of them by name.

    PYTHONPATH=tests python -m backends [prometheus alertmanager elasticsearch8 …]

Prometheus has the exported rules and tells that Alertmanager; it scrapes what its `targets.json`
lists. rsyslog carries its `logs/*.log` into Elasticsearch 8 under the exported index template. All
end with Ctrl-C, and when this process ends in any other way.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from backends import servers
from backends.servers import Server, Unstartable

from ragprof.monitoring import export, index_template, rsyslog

NAMES = ("prometheus", "alertmanager", "elasticsearch8", "elasticsearch9", "jaeger", "rsyslog")
# Which must answer before another one can be configured with its address.
NEEDS = {"prometheus": "alertmanager", "rsyslog": "elasticsearch8"}


def main(words: Sequence[str] | None = None) -> int:
    """Start them, print one line each, wait; 1 when one cannot start."""
    parser = argparse.ArgumentParser(
        prog="python -m backends", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    names = set(parser.parse_args(words).names or NAMES)
    if unknown := names - set(NAMES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    for name, needed in NEEDS.items():
        if name in names:
            names.add(needed)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    started: dict[str, Server] = {}
    try:
        for name in sorted(names, key=lambda name: (name in NEEDS, name)):
            print(f"starting {name}", file=sys.stderr, flush=True)
            started[name] = STARTERS[name](started)
        for name in NAMES:
            if name in started:
                print(_said(name, started[name]), flush=True)
        print("Ctrl-C ends them.", file=sys.stderr, flush=True)
        while True:
            time.sleep(1)
            for name, server in started.items():
                if _has_ended(server, os.WNOHANG):
                    raise Unstartable(f"{name} has ended by itself.")
    except Unstartable as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        for server in started.values():
            server.release()
        for server in started.values():
            _has_ended(server)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _has_ended(server: Server, options: int = 0) -> bool:
    """Whether the server's guard has ended; waits for that without WNOHANG."""
    try:
        return os.waitpid(server.pid, options)[0] != 0
    except ChildProcessError:
        return True


def _said(name: str, server: Server) -> str:
    """One line for the shell: a variable that the tests take, or a comment."""
    if name == "rsyslog":
        return f"# rsyslog: lines of {server.folder / 'logs'}/*.log go into elasticsearch8"
    line = f"export RAGPROF_TEST_{name.rstrip('89').upper()}_URL={server.url}"
    if name == "prometheus":
        return f"{line}  # targets: {server.folder / 'targets.json'}"
    if name == "jaeger":
        return f"{line} RAGPROF_TEST_JAEGER_OTLP_PORT={server.ports['otlp_http']}"
    return f"# or {line}" if name == "elasticsearch9" else line


def _folder(name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"ragprof-{name}-"))


def _prometheus(started: dict[str, Server]) -> Server:
    import yaml

    own = _folder("prometheus")
    (own / "rules.yml").write_text(export.rule_file())
    (own / "targets.json").write_text("[]\n")
    manager = started["alertmanager"].url.removeprefix("http://")
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "5s"},
        "rule_files": [str(own / "rules.yml")],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [manager]}]}]},
        "scrape_configs": [
            {
                "job_name": "rag-system",
                "file_sd_configs": [
                    {"files": [str(own / "targets.json")], "refresh_interval": "5s"}
                ],
            }
        ],
    }
    return servers.start_prometheus(own, yaml.safe_dump(config), remove=True)


def _alertmanager(started: dict[str, Server]) -> Server:
    return servers.start_alertmanager(_folder("alertmanager"), remove=True)


def _jaeger(started: dict[str, Server]) -> Server:
    return servers.start_jaeger(_folder("jaeger"), remove=True)


def _elasticsearch(version: str) -> Callable[[dict[str, Server]], Server]:
    def start(started: dict[str, Server]) -> Server:
        server = servers.start_elasticsearch(version)
        body = index_template.template()
        body["template"]["settings"]["index"] |= {"number_of_replicas": 0, "refresh_interval": "1s"}
        request = urllib.request.Request(
            f"{server.url}/_index_template/{index_template.NAME}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
            method="PUT",
        )
        urllib.request.urlopen(request, timeout=60).close()
        return server

    return start


def _rsyslog(started: dict[str, Server]) -> Server:
    own = _folder("rsyslog")
    (own / "logs").mkdir()
    config = rsyslog.config(
        files=f"{own / 'logs'}/*.log",
        port=int(started["elasticsearch8"].url.rpartition(":")[2]),
        spool=str(own),
        bad=str(own / "unparsed.txt"),
        refused=str(own / "refused.txt"),
    )
    return servers.start_rsyslog(own, config, remove=True)


STARTERS: dict[str, Callable[[dict[str, Server]], Server]] = {
    "prometheus": _prometheus,
    "alertmanager": _alertmanager,
    "elasticsearch8": _elasticsearch(servers.ELASTICSEARCH_8),
    "elasticsearch9": _elasticsearch(servers.ELASTICSEARCH_9),
    "jaeger": _jaeger,
    "rsyslog": _rsyslog,
}


if __name__ == "__main__":
    sys.exit(main())
