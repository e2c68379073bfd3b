"""Tests of programs that read stdin, or of one function, in the forms in which public training sets hold them.

The content of a form may be JSON text, or that text compressed (base64 of zlib), which some sets pickle first
(`plain_pickle`).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import json
import keyword
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from train_plugins.verifiers.base import Malformed, shown
from train_plugins.verifiers.plain_pickle import plain_value

PACKED = "eJ"
"""The start of base64 text of zlib's default compression."""
LONGEST = 256 * 2**20
"""Bytes of a row's tests after decompression."""
INPUT, OUTPUT = 14 * 2**20, 2**20
"""Most bytes of a test's input, as JSON, and of its output, that the sandbox takes from a program."""
_INPUTS = (("input", "inputs", "stdin"), ("output", "outputs", "expected_output", "stdout"))
_FUNCTION = ("fn_name", "func_name", "entry_point")
_HOLDERS = ("test_cases", "tests", "official_tests", "input_output", "verification_info")
"""Fields of a truth or columns of a row that hold the tests."""
_LIVECODEBENCH = ("public_test_cases", "private_test_cases")
COLUMNS = (*_HOLDERS, *_LIVECODEBENCH, "metadata")
"""Columns of a row without a truth that are one."""


@dataclass(frozen=True, slots=True)
class Case:
    """One test: what the program is given, and what it must answer."""

    given: Any
    """The text on stdin, or the function's arguments, a list."""
    wanted: Any
    """The text on stdout, or the returned value."""


@dataclass(frozen=True, slots=True)
class Tests:
    """The tests of a problem."""

    cases: tuple[Case, ...]
    function: str | None
    """The function to call, or the method of a class `Solution`; None for programs that read stdin."""


def stdin_tests(truth: Any, row: Mapping[str, Any]) -> Tests:
    """Return the tests of a truth, or of the row's columns without one. Raises Malformed."""
    if isinstance(truth, str):
        return _of_text(truth)
    if truth is None:
        truth = {name: row[name] for name in COLUMNS if row.get(name)}
        if not truth:
            raise Malformed("expected tests with `input` and `output`, not None")
    return _of(truth)


@functools.lru_cache(maxsize=16)  # the responses to a prompt come together, and tests may be large
def _of_text(text: str) -> Tests:
    return _of(decoded(text))


def decoded(text: str) -> Any:
    """Return the value of JSON text, or of compressed JSON, pickled or not. Raises Malformed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        packed = zlib.decompressobj()
        data = packed.decompress(base64.b64decode(text.encode("ascii"), validate=True), LONGEST)
    except (ValueError, binascii.Error, zlib.error):
        raise Malformed("it is neither JSON nor base64 of compressed JSON") from None
    if packed.unconsumed_tail or not packed.eof:
        raise Malformed(f"its compressed tests are cut off, or larger than {LONGEST >> 20} MiB")
    try:
        value = json.loads(data) if data[:1] in (b"[", b"{", b'"') else plain_value(data)
        return json.loads(value) if isinstance(value, str | bytes) else value
    except Malformed:
        raise
    except Exception as error:  # a damaged pickle raises many types
        raise Malformed(f"its compressed tests cannot be read: {shown(str(error))}") from None


def _of(value: Any) -> Tests:
    """Return the tests of any form: a list of tests, columns of inputs and outputs, or a mapping that holds them."""
    function = None
    if isinstance(value, Mapping):
        function = _function(value)
        named = [value[name] for name in (*_HOLDERS, *_LIVECODEBENCH) if value.get(name)]
        held = [decoded(one) if isinstance(one, str) else one for one in named]
        if named:
            lists = [_of(one) for one in held if one] or [_of(held[0])]  # LiveCodeBench has empty lists of public tests
            found = Tests(tuple(case for one in lists for case in one.cases), function or lists[0].function)
            return _typed(found)
        value = _rows_of_columns(value)
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise Malformed(f"expected tests with `input` and `output`, not {shown(value)}")
    function = function or next((_function(one) for one in value if isinstance(one, Mapping)), None)
    return _typed(Tests(tuple(_case(one) for one in value), function))


def _function(value: Mapping[str, Any]) -> str | None:
    metadata = value.get("metadata")
    if isinstance(metadata, str):
        with contextlib.suppress(Malformed):  # text about the row
            metadata = decoded(metadata)
    for source in (value, metadata if isinstance(metadata, Mapping) else {}):
        for name in _FUNCTION:
            if isinstance(source.get(name), str) and source[name].strip():
                return str(source[name]).strip()
    return None


def _rows_of_columns(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return {"inputs": [...], "outputs": [...]} as a list of tests; a single test as a list of one."""
    given, wanted = (next((value[name] for name in names if name in value), None) for names in _INPUTS)
    if isinstance(given, str) and isinstance(wanted, str):
        return [{"input": given, "output": wanted}]
    listed = all(isinstance(one, Sequence) and not isinstance(one, str) for one in (given, wanted))
    if not listed or len(given) != len(wanted):  # type: ignore[arg-type]
        raise Malformed("expected as many `inputs` as `outputs`, in lists")
    return [{"input": one, "output": other} for one, other in zip(given, wanted, strict=True)]  # type: ignore[arg-type]


def _case(value: Any) -> Case:
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        return Case(*value)
    if not isinstance(value, Mapping):
        hint = "; assertions are for the verifier code" if isinstance(value, str) else ""
        raise Malformed(f"a test has no `input` and `output`: {shown(value)}{hint}")
    parts = []
    for names in _INPUTS:
        name = next((name for name in names if name in value), None)
        if name is None:
            raise Malformed(f"a test has no `{names[0]}`: {shown(value)}")
        parts.append(value[name])
    return Case(*parts)


def _typed(tests: Tests) -> Tests:
    """Check that programs are given texts and functions lists of values, which some sets hold as lines of JSON."""
    if tests.function is None:
        cases = tuple(Case(_text(case.given), _text(case.wanted)) for case in tests.cases)
        for case in cases:
            _check_size(case)
        return Tests(cases, None)
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in tests.function.split(".")):
        raise Malformed(f"the function's name is none: {shown(tests.function)}")
    return Tests(tuple(Case(_arguments(case.given), _value(case.wanted)) for case in tests.cases), tests.function)


def _text(value: Any) -> str:
    """Return a test's text; a list holds lines."""
    if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Malformed(f"a test's input or output is no text: {shown(value)}")
    return str(value)


def _check_size(case: Case) -> None:
    """Raise Malformed for a test with which no program could pass, because it is too large for the sandbox."""
    if len(case.given) > INPUT // 6 and len(json.dumps(case.given)) > INPUT:
        raise Malformed(f"a test's input of {len(case.given):,} characters is larger than the sandbox takes")
    if len(case.wanted) > OUTPUT // 4 and len(case.wanted.strip().encode("utf-8", "replace")) > OUTPUT:
        length = f"{len(case.wanted):,} characters"
        raise Malformed(f"a test's output of {length} is longer than the {OUTPUT >> 20} MiB that a program may write")


def _arguments(value: Any) -> list[Any]:
    if isinstance(value, str):
        try:
            return [json.loads(line) for line in value.split("\n")]
        except ValueError:
            raise Malformed(f"a test's arguments are no lines of JSON: {shown(value)}") from None
    if not isinstance(value, Sequence):
        raise Malformed(f"a test's arguments are no list: {shown(value)}")
    return list(value)


def _value(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
