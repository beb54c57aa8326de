"""The loopback side of `ragprof watch`: webhooks in, a page of reports and commands out."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from ragprof.errors import RagprofError
from ragprof.monitoring import payload, shell
from ragprof.plots import page_css
from ragprof.reports.watch import Watch, WatchError

HOST, PORT = "127.0.0.1", 9465
_FILES = {
    "report.html": "text/html; charset=utf-8",
    "summary.md": "text/plain; charset=utf-8",
    "findings.json": "application/json",
    "alert.json": "application/json",
    "watch.json": "application/json",
}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_PATH = re.compile(r"/reports/([A-Za-z0-9_.-]+)/([a-z.]+)")
_TRACE = re.compile(r"[0-9a-f]{32}")


@contextmanager
def serving(watch: Watch, port: int = PORT) -> Iterator[str]:
    """Serve on loopback until the context ends; gives the address. Port 0: any free one.

    Raises WatchError when the port is taken.
    """

    class Handler(_Handler):
        of = watch

    try:
        server = _Server((HOST, port), Handler)
    except OSError as error:
        raise WatchError(
            f"port {port} of {HOST} cannot be used: {error.strerror}; choose another --port"
        ) from None
    thread = threading.Thread(target=server.serve_forever, args=(0.2,), daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 16


class _Handler(BaseHTTPRequestHandler):
    of: Watch
    timeout = 10  # seconds: a peer that says nothing is left
    server_version = "ragprof"
    sys_version = ""

    def do_POST(self) -> None:
        if not self._from_here():
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > payload.LARGEST:
            self._say(413, {"error": f"send at most {payload.LARGEST} bytes, with their length"})
            return
        body = self.rfile.read(int(length))
        try:
            alerts = payload.read(body)
        except RagprofError as error:
            self._say(400, {"error": str(error)})
            return
        self._say(200, self.of.take(alerts))

    def do_GET(self) -> None:
        if not self._from_here():
            return
        url = urlsplit(self.path)
        if url.path == "/":
            self._page("Reports", _reports(self.of))
        elif url.path == "/status":
            self._say(200, self.of.status())
        elif url.path == "/command":
            fields = {name: values[0] for name, values in parse_qs(url.query).items()}
            self._page("Command", _command(str(self.of.subject), fields))
        else:
            self._file(url.path)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: `watch` tells of alerts itself."""

    def _from_here(self) -> bool:
        """A page of another site must not reach us under a name of its own (DNS rebinding)."""
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        if host in (HOST, "localhost"):
            return True
        self._say(403, {"error": f"ask as {HOST}"})
        return False

    def _file(self, path: str) -> None:
        match = _PATH.fullmatch(path)
        known = {folder.name: folder for folder in self.of.folders()}
        if not match or match[1] not in known or match[2] not in _FILES:
            self._say(404, {"error": "there is no such page"})
            return
        file: Path = known[match[1]] / match[2]
        try:
            body = file.read_bytes()
        except OSError:
            self._say(404, {"error": "there is no such report yet"})
            return
        self._send(200, _FILES[match[2]], body)

    def _page(self, title: str, body: str) -> None:
        text = (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
            f'<link rel="icon" href="data:,"><title>{escape(title)} · ragprof watch</title>'
            f"<style>{page_css()}</style></head><body><h1>{escape(title)}</h1>{body}</body></html>"
        )
        self._send(200, "text/html; charset=utf-8", text.encode())

    def _say(self, code: int, content: object) -> None:
        self._send(code, "application/json", json.dumps(content).encode() + b"\n")

    def _send(self, code: int, type_: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", type_)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)


def _reports(watch: Watch) -> str:
    status = watch.status()
    rows = "".join(
        f"<tr><td>{_link(each)}</td><td>{escape(str(each['state']))}</td>"
        f"<td>{escape(str(each['summary']))}</td></tr>"
        for each in status["reports"]
    )
    counts = ", ".join(f"{count} {name}" for name, count in status["counts"].items())
    running = f"<p>Running: {escape(status['running'])}</p>" if status["running"] else ""
    return (
        f"<p>{escape(counts) or 'No alert has come in yet.'}</p>{running}<table><tbody>{rows}"
        "</tbody></table>"
    )


def _link(report: dict[str, object]) -> str:
    name = escape(str(report["folder"]))
    return f'<a href="/reports/{name}/report.html">{name}</a>' if report["report"] else name


def _command(subject: str, fields: dict[str, str]) -> str:
    """The command to paste, for a trace, or for an alert at the end of the shown time."""
    trace = fields.get("trace_id", "").lower()
    if _TRACE.fullmatch(trace):
        words = f"ragprof investigate '{shell.plain(subject)}' --slow {trace}"
        return f"<p>Paste into a shell:</p><pre>{escape(words)}</pre>"
    until = fields.get("to", "")
    if not until.isdigit() or len(until) > 15:
        return "<p>The address has neither <code>trace_id</code> nor <code>to</code>.</p>"
    alert = fields.get("alert", "Dashboard")
    labels = {"endpoint": fields["endpoint"]} if fields.get("endpoint") else {}
    words = shell.command(subject, alert, int(until) / 1000, labels)
    return f"<p>Paste into a shell:</p><pre>{escape(words)}</pre>"
