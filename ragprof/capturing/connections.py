"""Which process is at the other end of a loopback connection.

The kernel is asked for the one socket by netlink (sock_diag(7)), where that is allowed. Reading
/proc/net/tcp instead takes the whole table, which is no snapshot: a busy one can miss a line.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator

from ragprof.capturing.processes import PROC

LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY, also the type of the answer
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBBxI")  # struct inet_diag_req_v2 before its sockid
_SOCKID = struct.Struct("!HH16s16s")  # ports and addresses; interface and cookie follow
_ANY_COOKIE = b"\0" * 4 + b"\xff" * 8
_INODE = struct.Struct("=I")
_INODE_AT = _HEADER.size + 68  # the last field of struct inet_diag_msg


def inode(client: int, server: int) -> int:
    """The socket of the client that is connected from port `client` to `server`; 0: none."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as kernel:
            kernel.settimeout(1)
            for family, host in LOOPBACK:
                found = _ask(kernel, family, host, client, server)
                if found:
                    return found
            return 0
    except OSError:
        return _from_table(client, server)


def owner(inodes: Iterable[int], pids: Iterable[int]) -> int:
    """The first of `pids` that holds one of these sockets open; 0: none, or not ours to see."""
    wanted = {f"socket:[{number}]" for number in inodes if number}
    if not wanted:
        return 0
    for pid in pids:
        folder = PROC / str(pid) / "fd"
        try:
            for name in os.listdir(folder):
                try:
                    if os.readlink(folder / name) in wanted:
                        return pid
                except OSError:
                    continue
        except OSError:
            continue
    return 0


def listener(port: int, pids: Iterable[int]) -> int:
    """Which of `pids` listens on a TCP port; 0: none."""
    return owner(
        {int(fields[9]) for fields in _table() if fields[3] == "0A" and _port(fields[1]) == port},
        pids,
    )


def _ask(kernel: socket.socket, family: int, host: str, client: int, server: int) -> int:
    address = socket.inet_pton(family, host).ljust(16, b"\0")
    body = (
        _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF)
        + _SOCKID.pack(client, server, address, address)
        + _ANY_COOKIE
    )
    kernel.send(_HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, 1, 0, 0) + body)
    answer = kernel.recv(8192)
    if _HEADER.unpack_from(answer)[1] != _BY_FAMILY:  # an error: there is no such socket
        return 0
    return int(_INODE.unpack_from(answer, _INODE_AT)[0])


def _from_table(client: int, server: int) -> int:
    for fields in _table():
        if _port(fields[1]) == client and _port(fields[2]) == server and fields[9] != "0":
            return int(fields[9])
    return 0


def _table() -> Iterator[list[str]]:
    for name in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        yield from (line.split() for line in lines)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)
