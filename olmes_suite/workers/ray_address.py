"""Check, within seconds, that a Ray cluster answers at an address. Does not import Ray."""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec

from olmes_suite.errors import UsageError

AUTO, LOCAL = "auto", "local"
"""AUTO: the cluster of $RAY_ADDRESS, else one that runs on this machine, else LOCAL: a new one on this machine."""
CLIENT = "ray://"
"""The scheme of an address of Ray's client server, for a machine outside the cluster."""
PATIENCE = 5.0
"""Seconds in which a cluster's address must answer. Ray itself keeps trying for minutes."""
SETTINGS = 4
"""The type of the first frame of an HTTP/2 server (RFC 9113, 3.4 and 6.5)."""
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, SETTINGS, 0, 0, 0, 0, 0))
"""The first bytes of an HTTP/2 client such as Ray's gRPC: the preface and an empty settings frame."""


def reach(address: str, *, client: bool) -> None:
    """Raise UsageError, in one line, where no server answers at `host:port`, or the server cannot be Ray.

    `client`: whether the caller's work can go through Ray's client (`ray://host:port`).
    """
    if address.startswith(CLIENT):
        _check_client(address, client)
    host_port = address.removeprefix(CLIENT).split("?")[0]
    if host_port in ("", AUTO, LOCAL):
        return
    host, _, port = host_port.rpartition(":")
    if not host or not port.isdigit():
        forms = f"host:port, {CLIENT}host:port" if client else "host:port"
        raise UsageError(f"--ray {address}: not an address; give {forms}, auto or local")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE) as connection:
            is_grpc = _speaks_grpc(connection)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"--ray {address}: no Ray cluster answers there ({error}); start one with `ray start --head`, or give "
            "`--ray local` for this machine alone"
        ) from None
    if not is_grpc:
        raise UsageError(
            f"--ray {address}: the server there is not a Ray cluster; give the port of the head node (6379 unless "
            "`ray start` was given another)"
        )


def _check_client(address: str, client: bool) -> None:
    if not client:
        raise UsageError(
            f"--ray {address}: Ray's client cannot carry an evaluation; run on a machine of the cluster, with "
            "--ray host:port of its head node (6379 unless `ray start` was given another)"
        )
    if find_spec("grpc") is None:
        raise UsageError(f"--ray {address}: needs Ray's client: pip install 'ray[client]'; or give host:port")


def _speaks_grpc(connection: socket.socket) -> bool:
    """Return whether an HTTP/2 server is at the other end. A cluster with TLS is not checked."""
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
