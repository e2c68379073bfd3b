"""Where a Ray cluster is said to be: whether one answers there is found out in seconds. Imports no Ray."""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec

from olmes_suite.errors import UsageError

AUTO, LOCAL = "auto", "local"
"""AUTO: the cluster of $RAY_ADDRESS, else the one that runs on this machine, else LOCAL: one of this machine alone."""
CLIENT = "ray://"
"""Before the address of a server of Ray's client, for a machine outside the cluster."""
PATIENCE = 5.0
"""Seconds in which a cluster's address must answer. Ray itself goes on trying for minutes."""
SETTINGS = 4
"""Type of the frame that an HTTP/2 server sends first (RFC 9113, 3.4 and 6.5)."""
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, SETTINGS, 0, 0, 0, 0, 0))
"""How an HTTP/2 client, such as Ray's gRPC, begins: the preface, and settings that set nothing."""


def reach(address: str, *, client: bool) -> None:
    """Raise UsageError, one line, where nobody answers at `host:port`, or what answers cannot be Ray.

    `client`: whether what is to be done can be done through Ray's client (`ray://host:port`).
    """
    if address.startswith(CLIENT):
        _check_client(address, client)
    place = address.removeprefix(CLIENT).split("?")[0]
    if place in ("", AUTO, LOCAL):
        return
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit():
        ways = f"host:port, {CLIENT}host:port" if client else "host:port"
        raise UsageError(f"--ray {address}: not an address; give {ways}, auto or local")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE) as connection:
            known = _speaks_grpc(connection)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"--ray {address}: no Ray cluster answers there ({error}); start one with `ray start --head`, or give "
            "`--ray local` for this machine alone"
        ) from None
    if not known:
        raise UsageError(
            f"--ray {address}: what listens there is no Ray cluster; give the port of the head node (6379 unless "
            "`ray start` was told another)"
        )


def _check_client(address: str, client: bool) -> None:
    if not client:
        raise UsageError(
            f"--ray {address}: answers do not come through Ray's client; run on a machine of the cluster, with "
            "--ray host:port of its head node (6379 unless `ray start` was told another)"
        )
    if find_spec("grpc") is None:
        raise UsageError(f"--ray {address}: needs Ray's client: pip install 'ray[client]'; or give host:port")


def _speaks_grpc(connection: socket.socket) -> bool:
    """Whether an HTTP/2 server is at the other end. A cluster with TLS is taken at its word."""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return True
    connection.settimeout(PATIENCE)
    connection.sendall(HELLO)
    head = b""
    while len(head) < 9:
        try:
            more = connection.recv(9 - len(head))
        except (TimeoutError, ConnectionError):
            return False
        if not more:
            return False
        head += more
    return head[3] == SETTINGS
