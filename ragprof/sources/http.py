"""One HTTP client for all sources: authentication, TLS, bounded retries, bounded answers.

Every call is a read, so it may be repeated. What is worth another try: no connection, a cut or
garbled answer, a time-out, and the statuses 408, 425, 429 and 5xx. Waits grow from `FIRST_WAIT`,
with jitter, and `Retry-After` is heeded.
"""

from __future__ import annotations

import base64
import contextlib
import json as json_format
import random
import re
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import httpx

from ragprof.sources.settings import Secret, Settings
from ragprof.sources.source import SourceError

FIRST_WAIT, LONGEST_WAIT = 0.25, 20.0  # seconds
RETRIES = 6  # after the first try: some 15 s of waiting
TIMEOUT = 60.0  # seconds without a byte
LARGEST = 512 << 20  # bytes of one answer
AGAIN = {408, 425, 429, 500, 502, 503, 504}
SHOWN = 300  # characters of an answer in an error

T = TypeVar("T")


class Refused(SourceError):
    """The backend answers no: `status` says which one, `after` (s) when to ask again."""

    def __init__(self, text: str, status: int, body: str = "", after: float | None = None) -> None:
        super().__init__(text)
        self.status, self.body, self.after = status, body, after


class Unreachable(SourceError):
    """No usable answer after all tries."""


class TooMuch(SourceError):
    """An answer above the limit of bytes; ask for less at once."""


class Garbled(ValueError):
    """An answer that cannot be what was asked for; raised by readers, and tried again."""


@dataclass(frozen=True)
class Connection:
    """How to reach a backend. Nothing of it prints a secret."""

    url: str
    token: Secret | None = None  # bearer
    user: str = ""
    password: Secret | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    secret_headers: Mapping[str, Secret] = field(default_factory=dict)
    authority: str = ""  # PEM of the CA, when it is not a public one
    certificate: str = ""  # PEM, for mTLS
    key: str = ""
    key_password: Secret | None = None
    verify: bool = True
    timeout: float = TIMEOUT
    retries: int = RETRIES

    @property
    def address(self) -> str:
        """The URL as it may be shown."""
        return without_user(self.url)


def connection(settings: Settings, default_url: str | None = None) -> Connection:
    """The connection that a section describes; raises ConfigError.

    Fields: url, token, user, password, tenant, headers, ca, cert, key, key_password,
    verify (default true), timeout (s), retries.
    """
    url = settings.text("url", default_url).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise settings.wrong("url", 'must be an address such as "http://host:9090"')
    if parts.username or parts.password:
        raise settings.wrong("url", "holds a user or password; give user and password as fields")
    headers: dict[str, str] = {}
    secret_headers: dict[str, Secret] = {}
    for name, value in settings.table("headers").items():
        if isinstance(value, str) and not _SECRET_HEADER.search(name):
            headers[name] = value
        else:
            secret_headers[name] = settings.as_secret(f"headers.{name}", value)
    tenant = settings.text("tenant", "")
    if tenant:
        headers["X-Scope-OrgID"] = tenant
    user, password = settings.text("user", ""), settings.secret("password")
    token = settings.secret("token")
    if bool(user) != (password is not None):
        raise settings.wrong("password" if user else "user", "is missing; basic needs both")
    if token is not None and user:
        raise settings.wrong("token", "is given beside user; give one of them")
    certificate, key = settings.text("cert", ""), settings.text("key", "")
    if key and not certificate:
        raise settings.wrong("cert", "is missing beside key")
    return Connection(
        url=url,
        token=token,
        user=user,
        password=password,
        headers=headers,
        secret_headers=secret_headers,
        authority=settings.text("ca", ""),
        certificate=certificate,
        key=key,
        key_password=settings.secret("key_password"),
        verify=settings.flag("verify", True),
        timeout=_positive(settings, "timeout", TIMEOUT),
        retries=int(_positive(settings, "retries", RETRIES, zero=True)),
    )


_SECRET_HEADER = re.compile(r"authorization|cookie|token|secret|password|key", re.IGNORECASE)


def _positive(settings: Settings, name: str, default: float, *, zero: bool = False) -> float:
    value = settings.number(name, default)
    if not (value > 0 or (zero and value == 0)):
        raise settings.wrong(name, "must be above 0")
    return value


def without_user(url: str) -> str:
    """A URL without user, password and query."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, host + port, parts.path.rstrip("/"), "", ""))


def tls_context(to: Connection) -> ssl.SSLContext:
    """The TLS context of a connection; raises SourceError that names the file."""
    try:
        context = ssl.create_default_context(cafile=to.authority or None)
    except (OSError, ssl.SSLError) as error:
        raise SourceError(f"The CA file {to.authority} cannot be used ({error}).") from None
    if not to.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if to.certificate:
        password = to.key_password
        try:
            context.load_cert_chain(
                to.certificate, to.key or None, password.reveal if password else ""
            )
        except (OSError, ssl.SSLError) as error:
            raise SourceError(
                f"The client certificate {to.certificate} cannot be used "
                f"({error.strerror or error}); check cert, key and key_password."
            ) from None
    return context


class Client:
    """Asks one backend; safe between threads. `name` is the source in errors."""

    def __init__(
        self,
        name: str,
        to: Connection,
        *,
        transport: httpx.BaseTransport | None = None,
        wait: Callable[[float], Any] = time.sleep,
    ) -> None:
        self.name, self.to = name, to
        self.requests = self.repeated = self.received = 0  # received: bytes
        self.clock_ahead: float | None = None  # seconds, to a second: the server's clock less ours
        self._wait = wait
        self._lock = threading.Lock()
        parts = urlsplit(to.url)
        # A proxy from the environment has no business between us and this machine.
        near = parts.hostname in ("localhost", "127.0.0.1", "::1")
        self._http = httpx.Client(
            base_url=to.url,
            headers={"Accept-Encoding": "gzip", "User-Agent": "ragprof", **to.headers},
            transport=transport,
            verify=tls_context(to) if parts.scheme == "https" and transport is None else True,
            timeout=to.timeout,
            trust_env=not near,
            follow_redirects=False,  # they would carry our credentials elsewhere
            limits=httpx.Limits(max_connections=32),
        )

    def close(self) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        read: Callable[[bytes], T],
        *,
        params: Any = None,
        form: Any = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        largest: int = LARGEST,
    ) -> T:
        """`read` of the answer's body. A ValueError of `read` means a garbled answer: tried again.

        Raises Refused for a status that no other try changes, TooMuch above `largest` bytes,
        Unreachable when no try gave an answer.
        """
        wait = FIRST_WAIT
        for left in range(self.to.retries, -1, -1):
            asked: float | None = None
            try:
                body = self._once(method, path, params, form, json, headers, largest)
                return read(body)
            except Refused as error:
                if error.status not in AGAIN or not left:
                    raise
                asked = error.after
            except httpx.HTTPError as error:
                if not left or _hopeless(error):
                    raise Unreachable(self._says(error)) from None
            except (ValueError, zlib.error) as error:
                if not left:
                    raise Unreachable(
                        f"{self.name}: {self.to.address}{path} answers garbage "
                        f"({str(error)[:SHOWN]}); is it the right address?"
                    ) from None
            with self._lock:
                self.repeated += 1
            pause = wait * (0.5 + random.random()) if asked is None else asked  # noqa: S311
            self._wait(min(LONGEST_WAIT, pause))
            wait *= 2
        raise AssertionError("every try returns, raises or repeats")

    def json(self, method: str, path: str, **how: Any) -> Any:
        """The answer as JSON (see `call`)."""
        return self.call(method, path, parse_json, **how)

    def _once(
        self,
        method: str,
        path: str,
        params: Any,
        form: Any,
        json: Any,
        headers: Mapping[str, str] | None,
        largest: int,
    ) -> bytes:
        request = self._http.build_request(
            method, path, params=params, data=form, json=json, headers=self._headers(headers)
        )
        with self._lock:
            self.requests += 1
        response = self._http.send(request, stream=True)
        try:
            parts, size = [], 0
            for part in response.iter_bytes():
                size += len(part)
                if size > largest:
                    raise TooMuch(
                        f"{self.name}: {self.to.address}{path} answers more than {largest} bytes; "
                        "ask for a shorter window or fewer series."
                    )
                parts.append(part)
        finally:
            response.close()
        body = b"".join(parts)
        date = _date(response.headers.get("Date"))
        with self._lock:
            self.received += size
            if date is not None:
                self.clock_ahead = date + 0.5 - time.time()
        if response.status_code != 200:
            raise self._refused(path, response, body)
        return body

    def _headers(self, more: Mapping[str, str] | None) -> dict[str, str]:
        headers = dict(more or {})
        for name, secret in self.to.secret_headers.items():
            headers[name] = secret.reveal()
        if self.to.token is not None:
            headers["Authorization"] = f"Bearer {self.to.token.reveal()}"
        elif self.to.password is not None:
            pair = f"{self.to.user}:{self.to.password.reveal()}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        return headers

    def _refused(self, path: str, response: httpx.Response, body: bytes) -> Refused:
        status = response.status_code
        text = " ".join(body.decode("utf-8", "replace").split())
        step = _STEPS.get(status, "see what the server logs")
        if 300 <= status < 400:
            target = without_user(response.headers.get("Location", ""))
            step = f"it points to {target}: give that address"
        return Refused(
            f"{self.name}: {self.to.address}{path} answers {status} "
            f"({text[:SHOWN] or response.reason_phrase}); {step}.",
            status,
            text,
            _seconds(response.headers.get("Retry-After")),
        )

    def _says(self, error: httpx.HTTPError) -> str:
        where = f"{self.name}: {self.to.address}"
        why = str(error).splitlines()[0][:SHOWN] if str(error) else type(error).__name__
        if isinstance(error, httpx.TimeoutException):
            return f"{where} does not answer within {self.to.timeout:g} s; is it up and near?"
        if "CERTIFICATE_VERIFY_FAILED" in why:
            return f"{where} has a certificate that is not trusted ({why}); give its CA as ca."
        if isinstance(error, httpx.ConnectError):
            return f"{where} cannot be reached ({why}); check the address and that it runs."
        return f"{where} breaks the connection ({why}); try again, or look at its log."


_STEPS = {
    400: "the query is not understood",
    401: "give token, or user and password",
    403: "this user may not read here: ask for the right to",
    404: "check the address and its path",
    413: "ask for less at once",
    422: "the query cannot be executed",
    429: "it is asked too often: lower parallel",
    503: "it is overloaded or starting: try again later",
}


def parse_json(body: bytes) -> Any:
    """JSON; raises Garbled."""
    try:
        return json_format.loads(body)
    except (ValueError, RecursionError) as error:
        raise Garbled(f"not JSON: {str(error)[:100]}") from None


def _hopeless(error: httpx.HTTPError) -> bool:
    return isinstance(error, httpx.UnsupportedProtocol) or "CERTIFICATE_VERIFY" in str(error)


def _seconds(after: str | None) -> float | None:
    """Retry-After in seconds; a date becomes the time until then."""
    if not after:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(after))
    date = _date(after)
    return None if date is None else max(0.0, date - time.time())


def _date(text: str | None) -> float | None:
    """An HTTP date in seconds since 1970; None when there is none or it cannot be read."""
    with contextlib.suppress(ValueError, TypeError):
        return parsedate_to_datetime(text).timestamp() if text else None
    return None


@contextlib.contextmanager
def client(name: str, to: Connection) -> Iterator[Client]:
    """A client that gives its connections back at the end."""
    made = Client(name, to)
    try:
        yield made
    finally:
        made.close()
