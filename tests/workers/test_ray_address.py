"""Whether a Ray cluster answers at an address is known in seconds, without Ray."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from models_fixture import one_line

from olmes_suite.errors import UsageError
from olmes_suite.workers import ray_address
from olmes_suite.workers.ray_address import reach


@contextmanager
def listening(says: bytes | None) -> Iterator[str]:
    """A server that says this to all comers; None: nothing, and it hangs up; empty: nothing, and it stays."""
    kept = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                while True:
                    connection, _ = server.accept()
                    kept.append(connection)
                    connection.sendall(says or b"")
                    if says is None:
                        connection.close()
            except OSError:
                pass

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    for connection in kept:
        connection.close()


@pytest.mark.parametrize("says", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"", None])
def test_what_listens_and_is_no_cluster_is_one_line(says, monkeypatch):
    monkeypatch.setattr(ray_address, "PATIENCE", 0.3)
    with listening(says) as address:
        one_line(lambda: reach(address, client=False), f"--ray {address}: the server there is not a Ray", UsageError)


def test_grpc_is_taken_for_ray(monkeypatch):
    with listening(bytes((0, 0, 6, ray_address.SETTINGS, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 9))) as address:
        reach(address, client=False)
    monkeypatch.setenv("RAY_USE_TLS", "1")  # it begins with TLS's own greeting
    with listening(b"") as address:
        reach(address, client=False)


def test_rays_client(monkeypatch):
    """It cannot stream an actor's answers, and is no part of the extra `ray`."""
    one_line(lambda: reach("ray://127.0.0.1:1", client=False), "machine of the cluster", UsageError)
    monkeypatch.setattr(ray_address, "find_spec", lambda name: None)
    one_line(lambda: reach("ray://127.0.0.1:1", client=True), r"ray\[client\]", UsageError)
    monkeypatch.setattr(ray_address, "find_spec", lambda name: name)
    one_line(lambda: reach("ray://127.0.0.1:1", client=True), "no Ray cluster answers", UsageError)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "no Ray cluster answers"),
        ("home", "not an address"),
        ("a:b", "not an address"),
        (":1", "not an"),
    ],
)
def test_an_address_where_nobody_can_be_is_one_line(address, words):
    one_line(lambda: reach(address, client=False), words, UsageError)


@pytest.mark.parametrize("address", ["", "auto", "local"])
def test_no_address_is_left_to_ray(address):
    reach(address, client=False)
