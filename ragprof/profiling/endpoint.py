"""A profile from a service's own endpoint, `ragprof.service.profiling`."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from ragprof.profiles.content import Content
from ragprof.profiles.model import Profile
from ragprof.profiles.read import profiles_of
from ragprof.profiling.engine import SessionError

PATH = "/debug/pprof/profile"
TOKEN = "RAGPROF_PROFILING_TOKEN"  # noqa: S105  # the name of a variable
MOST_BYTES = 256 << 20
PATIENCE = 30.0  # seconds beyond those of the profile


def fetch(url: str, seconds: float, token: str = "") -> Profile:
    """The next ``seconds`` of the service at ``url`` (its root, or the endpoint in full).

    The token is the argument, else the variable RAGPROF_PROFILING_TOKEN; it is sent to that host
    alone. Raises SessionError with the way out.
    """
    import httpx

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SessionError(f"{url!r} is no address: write it as http://host:8000")
    where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    path = parts.path if parts.path.strip("/") else PATH
    token = token or os.environ.get(TOKEN, "")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.stream(
            "GET",
            f"{where}{path}",
            params={"seconds": f"{seconds:g}"},
            headers=headers,
            timeout=httpx.Timeout(seconds + PATIENCE, connect=10.0),
            follow_redirects=False,
        ) as answer:
            data = b""
            for part in answer.iter_bytes():
                data += part
                if len(data) > MOST_BYTES:
                    raise SessionError(f"{where} answers more than {MOST_BYTES >> 20} MiB; "
                                       "ask for fewer seconds")  # fmt: skip
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise SessionError(f"{where} does not answer ({reason}); check host and port") from None
    if answer.status_code != 200:
        raise SessionError(_refused(where, path, answer.status_code, data))
    (found,) = profiles_of(Content(data, "profile.pb.gz"), format="pprof")
    return found.named(where)


def _refused(where: str, path: str, status: int, data: bytes) -> str:
    said = " ".join(data[:300].decode("utf-8", "replace").split())
    if status == 401:
        return f"{where} wants its token: put it into the variable {TOKEN}"
    if status == 404:
        return (
            f"{where} has no {path}: call setup_profiling(app) in the service and give it a token"
        )
    return f"{where} answers {status}: {said}"
