"""The tests of a LiveCodeBench problem: public as JSON, private as JSON or a compressed pickle of JSON text."""

from __future__ import annotations

import base64
import binascii
import functools
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LONGEST = 512 * 2**20
"""Bytes of a document's private tests after decompression; more is not decoded."""


@dataclass(frozen=True, slots=True)
class Case:
    """One test: what the program reads, and what it must answer."""

    given: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Tests:
    """The tests of a problem."""

    cases: tuple[Case, ...]
    function: str | None
    """The function or method to call; None for a program that reads stdin."""
    dropped: bool
    """Whether there are tests that could not be decoded."""


def of(doc: Mapping[str, Any]) -> Tests:
    """Return the document's tests, the public ones first."""
    return _of(doc["public_test_cases"], doc["private_test_cases"], doc["metadata"])


@functools.lru_cache(maxsize=32)
def _of(public: str | None, private: str | None, metadata: str | None) -> Tests:
    shown, hidden, about = _listed(_json(public)), decoded(private), _json(metadata or "{}")
    if not isinstance(about, dict):  # whether a function is called is not known
        return Tests((), None, True)
    cases = [Case(case["input"], case["output"]) for case in [*(shown or ()), *(hidden or ())]]
    return Tests(tuple(cases), about.get("func_name"), shown is None or hidden is None)


def decoded(private: str | None) -> list[dict[str, str]] | None:
    """Decode private tests; None where they cannot be decoded, which the reference takes for no tests.

    The pickle may hold a text and nothing else: no object of any class is made.
    """
    found = _json(private)
    return _listed(_unpacked(private) if found is None and private else found)


def _json(text: str | None) -> Any:
    """Return the value of a JSON text; None for what is no JSON, or nested too deeply."""
    try:
        return json.loads(text or "")
    except (ValueError, RecursionError):
        return None


def _listed(found: Any) -> list[dict[str, str]] | None:
    valid = isinstance(found, list) and all(
        isinstance(case, dict) and isinstance(case.get("input"), str) and isinstance(case.get("output"), str)
        for case in found
    )
    return found if valid else None


def _unpacked(private: str) -> Any:
    try:
        packed = zlib.decompressobj()
        data = packed.decompress(base64.b64decode(private.encode("utf-8")), LONGEST)
        if packed.unconsumed_tail or not packed.eof:
            return None
        text = _TextOnly(io.BytesIO(data)).load()
        return json.loads(text) if isinstance(text, str | bytes) else None
    except (ValueError, binascii.Error, zlib.error, pickle.UnpicklingError, EOFError, IndexError, KeyError,
            AttributeError, TypeError, MemoryError, RecursionError, OverflowError):  # fmt: skip
        return None


class _TextOnly(pickle.Unpickler):
    """Unpickles builtin values alone."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no text")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("a reference is no text")
