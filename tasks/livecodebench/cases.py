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
    """Whether private tests exist that could not be decoded."""


def of(doc: Mapping[str, Any]) -> Tests:
    """Return the document's tests, the public ones first."""
    return _of(doc["public_test_cases"], doc["private_test_cases"], doc["metadata"])


@functools.lru_cache(maxsize=32)
def _of(public: str, private: str, metadata: str) -> Tests:
    hidden = decoded(private)
    cases = [Case(str(case["input"]), str(case["output"])) for case in [*json.loads(public), *(hidden or ())]]
    function = json.loads(metadata or "{}").get("func_name")
    return Tests(tuple(cases), function, hidden is None)


def decoded(private: str) -> list[dict[str, str]] | None:
    """Decode private tests; None where they cannot be decoded, which the reference takes for no tests.

    The pickle may hold a text and nothing else: no object of any class is made.
    """
    try:
        found = json.loads(private)
    except ValueError:
        found = _unpacked(private)
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
