"""record.sh for images without a shell, or without a place to write: all is kept in memory.

The same arguments and messages; PLACE and TOKEN are not used. py-spy and its output are anonymous
files in memory (memfd_create), so nothing is left behind, however this ends.
"""

from __future__ import annotations

import base64
import gzip
import os
import select
import signal
import sys
import time

source, _place, _token, target, user, encoding, watch = sys.argv[1:8]
arguments = sys.argv[8:]
messages = 1 if encoding == "base64" else 2


def say(text: str) -> None:
    os.write(messages, b"@ragprof " + text.encode() + b"\n")


def fail(text: str) -> None:
    say("failed " + text)
    sys.exit(1)


def text_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def field(process: str, name: str) -> str:
    for line in text_of(f"/proc/{process}/status").splitlines():
        if line.startswith(name + ":"):
            return line[len(name) + 1 :]
    return ""


def owner(process: str) -> str:
    return ":".join((field(process, name).split() or ["?", "?"])[1] for name in ("Uid", "Gid"))


def is_python(process: str) -> bool:
    try:
        program = os.readlink(f"/proc/{process}/exe")
    except OSError:
        program = ""
    return "python" in (program + text_of(f"/proc/{process}/cmdline").split("\0")[0]).lower()


def find(container: str, wanted: str) -> str:
    for process in sorted((name for name in os.listdir("/proc") if name.isdigit()), key=int):
        if container not in text_of(f"/proc/{process}/cgroup"):
            continue
        numbers = field(process, "NSpid").split() or [process]
        if numbers[-1] == wanted if wanted else is_python(process):
            return process
    fail("its process is not seen from here")
    return ""


def check_workers() -> None:
    """py-spy passes over children that it may not read, without a word."""
    if int(field("self", "CapEff"), 16) >> 19 & 1:  # CAP_SYS_PTRACE
        return
    for worker in filter(str.isdigit, os.listdir("/proc")):
        child = field(worker, "PPid").strip() == pid and is_python(worker)
        if child and owner(worker) != owner(pid):
            runs_as = f"its worker {worker} runs as {owner(worker)}, it as {owner(pid)}"
            fail(f"permission denied: {runs_as}")


def receive(size: int) -> int:
    descriptor = os.memfd_create("py-spy", 0)
    say("ready")
    signal.alarm(120)  # whoever was to send it may be gone
    left = size
    while left:
        data = os.read(0, min(left, 1 << 20))
        if not data:
            fail("py-spy arrived incomplete")
        left -= len(data)
        while data:
            data = data[os.write(descriptor, data) :]
    signal.alarm(0)
    return descriptor


def spy(extra: list[str]) -> tuple[int, str]:
    os.ftruncate(profile, 0)
    os.ftruncate(said, 0)
    os.lseek(said, 0, os.SEEK_SET)
    words = ["py-spy", *arguments, *extra, "--pid", pid, "--output", f"/proc/self/fd/{profile}"]
    child = os.fork()
    if not child:
        # A signal to stop that comes before py-spy listens must not end it; it is sent again.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(said, 1)
            os.dup2(said, 2)
            if user:
                uid, gid = user.split(":")
                os.setgroups([])
                os.setgid(int(gid))
                os.setuid(int(uid))
            os.execve(program, words, dict(os.environ))  # noqa: S606
        except OSError as error:
            os.write(2, str(error).encode())
        os._exit(127)
    children.append(child)
    say("started")
    watched, stopping = watch == "yes", 0.0
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if watched and select.select([0], [], [], 0.1)[0]:
            watched, stopping = False, time.monotonic()
        elif not watched:
            time.sleep(0.1)
        if 0 < stopping <= time.monotonic():
            os.kill(child, signal.SIGINT)
            stopping = time.monotonic() + 1
    children.clear()
    text = text_of(f"/proc/self/fd/{said}")
    os.write(messages, text.encode())
    return (os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)), text


def stop(number: int, _frame: object) -> None:
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os._exit(128 + number)


children: list[int] = []
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, stop)
if not hasattr(os, "memfd_create"):
    fail("this Python is older than 3.8: files in memory are not to be had")
program = receive(int(source[6:])) if source.startswith("stdin:") else source
profile, said = os.memfd_create("profile", 0), os.memfd_create("said", 0)
pid = find(*target.split("/")) if "/" in target else target
say(f"target {pid} {owner(pid)} self {owner('self')}")
check_workers()
code, text = spy([])
if not os.fstat(profile).st_size and "suspend process" in text:
    say("nonblocking")
    code, text = spy(["--nonblocking"])
say(f"code {code}")
size = os.fstat(profile).st_size
if not size:
    sys.exit(1)
content = os.pread(profile, size, 0)
if encoding == "base64":
    say("begin")
    os.write(1, base64.encodebytes(gzip.compress(content)))
    say("end")
else:
    say(f"bytes {size}")
    while content:
        content = content[os.write(1, content) :]
