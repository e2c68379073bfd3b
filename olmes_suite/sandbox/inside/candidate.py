"""The process of the program: it executes the program and answers calls. It receives inputs, never expected values."""

from __future__ import annotations

import socket
import sys
import types
from typing import Any

from . import wire


def load(program: str, name: str = "candidate") -> types.ModuleType:
    """Execute the program as a module. Raises whatever the program raises."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(program, "<candidate>", "exec"), module.__dict__)
    return module


def serve(program: str, link: socket.socket) -> None:
    """Answer calls on `link` until it closes.

    Requests are {"calls": [[name, args, kwargs], …]}; the answer to each call is a frame {"r": value} or
    {"x": [exception, message]}. One such frame comes first and says whether the program loads.
    """
    try:
        module = load(program)
    except BaseException as error:
        wire.send(link, _exception(error))
        return
    wire.send(link, {"r": None})
    while True:
        try:
            message = wire.receive(link)
        except EOFError:
            return
        for name, args, kwargs in message["calls"]:
            link.sendall(_answer(module, name, args, kwargs))


def _answer(module: types.ModuleType, name: str, args: object, kwargs: object) -> bytes:
    try:
        value = vars(module)[name](*wire.decode(args), **wire.decode(kwargs))
        return wire.dumps({"r": wire.encode(value)})
    except BaseException as error:
        return wire.dumps(_exception(error))


def _exception(error: BaseException) -> dict[str, Any]:
    try:
        message = str(error)[:300]
    except BaseException:
        message = ""
    return {"x": [str(type(error).__name__)[:80], message]}
