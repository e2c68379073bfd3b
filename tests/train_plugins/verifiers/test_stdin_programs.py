"""Programs that read stdin, and functions, by tests in the forms of public sets."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from olmes_suite.errors import MissingData
from train_plugins.verifiers import Call, Malformed, Verifiers
from train_plugins.verifiers.plain_pickle import plain_value
from train_plugins.verifiers.program_tests import stdin_tests
from train_plugins.verifiers.programs import tests_of as assertions_of  # pytest takes `tests_of` for a test
from train_plugins.verifiers.stdin_programs import script

PAIRS = [{"input": "1 2\n", "output": "3\n"}, {"input": "5 6\n", "output": "11\n"}]
STDIN = [("1 2\n", "3\n"), ("5 6\n", "11\n")]
ADD = "a, b = map(int, input().split())\nprint(a + b)"


def packed(value: Any, pickled: bool = True) -> str:
    data = pickle.dumps(value) if pickled else json.dumps(value).encode()
    return base64.b64encode(zlib.compress(data)).decode()


@pytest.fixture(scope="module")
def sandboxed() -> Iterator[Verifiers]:
    try:
        with Verifiers(["code_stdio", "code_stdio_fraction"], workers=2, timeout=10) as made:
            yield made
    except MissingData as error:
        pytest.skip(str(error))


def one(verifiers: Verifiers, response: str, truth: Any, name: str = "code_stdio", **row: Any) -> float | None:
    return verifiers.verify([Call(name, response, truth, row)])[0]


@pytest.mark.parametrize(
    "truth",
    [
        PAIRS,
        json.dumps(PAIRS),
        packed(json.dumps(PAIRS)),  # as LiveCodeBench and open-instruct pack them
        packed(PAIRS),
        packed(PAIRS, pickled=False),
        {"inputs": ["1 2\n", "5 6\n"], "outputs": ["3\n", "11\n"]},  # APPS and TACO
        {"input": ["1 2\n", "5 6\n"], "output": ["3\n", "11\n"]},  # CodeContests
        {"language": "python", "test_cases": [{"type": "stdin_stdout", "fn_name": None, **pair} for pair in PAIRS]},
        json.dumps({"official_tests": PAIRS}),
        {"public_test_cases": json.dumps(PAIRS[:1]), "private_test_cases": packed(json.dumps(PAIRS[1:])),
         "metadata": "{}"},
    ],
)  # fmt: skip
def test_forms_of_tests(truth: Any) -> None:
    tests = stdin_tests(truth, {})
    assert [(case.given, case.wanted) for case in tests.cases] == STDIN and tests.function is None


@pytest.mark.parametrize(
    "truth",
    [
        {"fn_name": "add", "inputs": [[1, 2], [5, 6]], "outputs": [3, 11]},
        {"fn_name": "Solution.add", "inputs": [[1, 2], [5, 6]], "outputs": [[3], [11]]},
        {"public_test_cases": '[{"input": "1\\n2", "output": "3", "testtype": "functional"}]',
         "metadata": '{"func_name": "add"}'},
        {"test_cases": [{"type": "function_call", "fn_name": "add", "input": [1, 2], "output": 3}]},
    ],
)  # fmt: skip
def test_functions_are_called(sandboxed: Verifiers, truth: Any) -> None:
    plain, method = (
        "def add(a, b):\n    return a + b",
        "class Solution:\n    def add(self, a, b):\n        return a + b",
    )
    assert [one(sandboxed, code, truth) for code in (plain, method, plain.replace("+", "-"), "x = 1")] == [1, 1, 0, 0]


def test_packed_assertions_are_read_for_the_verifier_code() -> None:
    tests = ["assert f(1) == 2", "assert f(2) == 3"]
    assert assertions_of(packed(tests), {}) == assertions_of(packed(json.dumps(tests)), {}) == tests
    with pytest.raises(Malformed, match=r"its pickle asks for builtins\.print"):
        assertions_of(packed(Calls()), {})


def test_a_rows_columns_are_read_without_a_truth() -> None:
    assert len(stdin_tests(None, {"input_output": json.dumps(PAIRS), "metadata": None}).cases) == 2


class Calls:
    """What a harmful pickle holds."""

    def __reduce__(self) -> Any:
        return (print, ("this must not run",))


@pytest.mark.parametrize(
    ("truth", "why"),
    [
        (packed(Calls()), r"its pickle asks for builtins\.print; only lists"),
        (packed([{"input": Calls(), "output": ""}]), r"asks for builtins\.print"),
        (packed(PAIRS)[:-9], "neither JSON nor base64|cut off"),
        (base64.b64encode(zlib.compress(b"\x80\x05garbage")).decode(), "cannot be read"),
        ("eJnot base64", "neither JSON nor base64"),
        ("[1, 2", "neither JSON nor base64"),
        ([], "expected tests with `input` and `output`"),
        (None, "expected tests with `input` and `output`"),
        (7, "expected tests"),
        ([{"input": "1"}], "a test has no `output`"),
        ([{"input": "1", "output": None}], "is no text"),
        (["assert f(1) == 2"], "assertions are for the verifier code"),
        ({"inputs": ["1"], "outputs": []}, "as many `inputs` as `outputs`"),
        ({"fn_name": "a b", "inputs": [[1]], "outputs": [1]}, "the function's name is none"),
        ({"fn_name": "class", "inputs": [[1]], "outputs": [1]}, "the function's name is none"),
        ({"fn_name": "f", "inputs": ["x"], "outputs": [1]}, "no lines of JSON"),
        ([{"input": "é" * 3_000_000, "output": "1"}], "input of 3,000,000 characters is larger"),
        ([{"input": "1", "output": "1" * 1_100_000}], "output of 1,100,000 characters is longer than the 1 MiB"),
    ],
)
def test_tests_that_cannot_be_read(truth: Any, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Malformed, match=why):
        stdin_tests(truth, {})
    assert not capsys.readouterr().out


def raw(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x80\x04cos\nsystem\n(S'echo'\ntR.", "asks for os.system"),
        (b"(S'echo'\nios\nsystem\n.", "asks for os.system"),
        (b"\x80\x02\x82\x01.", "uses EXT1"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "more memory than it has values"),  # a memo of 32 GiB
        (b"]q\x00h\x00a.", "unfolds to"),  # a list that contains itself
        (b"".join([b"]", *(b"q%c](h%ch%ch%ch%ce" % (n, n, n, n, n) for n in range(40)), b"."]), "unfolds to"),
        (b"]" * 5000 + b"a" * 4999 + b".", "unfolds to"),  # too deep to be shown
    ],
)  # fmt: skip
def test_a_hostile_pickle_is_refused_before_it_runs(data: bytes, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train_plugins.verifiers.plain_pickle.LARGEST", 10_000)
    with pytest.raises(Malformed, match=why):
        stdin_tests(raw(data), {})


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_plain_values_are_read(protocol: int) -> None:
    text = "shared"
    value = {"a": [1, -(2**70), 0.5, None, True, "é\n", text, text, (1,), (1, 2), (1, 2, 3, 4), {}, []]}
    assert plain_value(pickle.dumps(value, protocol)) == value


def test_deep_values_are_named_in_one_line() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(Malformed, match="a list that is too large to be shown"):
        stdin_tests(deep, {})


def test_columns_that_are_no_tests() -> None:
    """Text about a row is no metadata of tests, and LiveCodeBench has rows without public tests."""
    assert len(stdin_tests(None, {"input_output": json.dumps(PAIRS), "metadata": "from a book"}).cases) == 2
    tests = stdin_tests({"public_test_cases": "[]", "private_test_cases": json.dumps(PAIRS), "metadata": "{}"}, {})
    assert len(tests.cases) == 2
    with pytest.raises(Malformed, match="expected tests"):
        stdin_tests({"public_test_cases": "[]"}, {})


HOSTILE = {
    "a process left behind": "import os\nif os.fork() == 0:\n    os.setsid()\n    while 1: pass\n",
    "kills all it can": "import os\ntry: os.kill(-1, 9)\nexcept OSError: pass\n",
    "kills its parent": "import os\ntry: os.kill(os.getppid(), 9)\nexcept OSError: pass\n",
    "a late line": "import os, time\nif os.fork() == 0:\n    time.sleep(0.5)\n    print('late')\n    os._exit(0)\n",
}
"""Beginnings of programs that are right otherwise."""
WRONG = (
    "while True: print('x' * 100_000)",
    "import os\nfor fd in range(1, 64):\n    try: os.write(fd, b'3')\n    except OSError: pass",
    f"{ADD}\nimport os\nos.kill(os.getpid(), 9)",
)
SEEK = """
import gc, sys
secret = "47" + "11"
found = [one for one in gc.get_objects() if isinstance(one, dict) and secret in map(str, one.values())]
frame = sys._getframe()
while frame := frame.f_back:
    found += [value for value in frame.f_locals.values() if secret in str(value)[:999]]
print(secret if [one for one in found if one is not globals()] else "no")
"""


def test_hostile_programs_change_no_other_verdict(sandboxed: Verifiers) -> None:
    """A program that is right as well as hostile is right; what it leaves behind reaches no later test."""
    for what, program in HOSTILE.items():
        assert one(sandboxed, program + ADD, PAIRS) == 1, what
        assert one(sandboxed, "print(3)", PAIRS, "code_stdio_fraction") == 0.5, what
    assert [one(sandboxed, program, PAIRS) for program in WRONG] == [0] * len(WRONG)
    assert one(sandboxed, ADD, PAIRS) == 1


def test_a_program_cannot_see_what_is_expected(sandboxed: Verifiers) -> None:
    assert one(sandboxed, SEEK, [{"input": "", "output": "4711"}] * 3, "code_stdio_fraction") == 0
    assert one(sandboxed, SEEK, [{"input": "", "output": "no"}] * 3) == 1


def test_infinity_is_a_value(sandboxed: Verifiers) -> None:
    truth = '{"fn_name": "f", "inputs": [[1]], "outputs": [Infinity]}'
    assert one(sandboxed, "def f(x): return float('inf')", truth) == 1
    assert one(sandboxed, "def f(x): return 1.0", truth) == 0


def test_programs_are_judged_by_their_output(sandboxed: Verifiers) -> None:
    fenced = f"So:\n```python\n{ADD}\n```\nwith the output\n```\n3\n```\n"
    for response in (ADD, fenced, ADD + "\nexit()", ADD.replace("a + b)", "float(a + b), '')")):
        assert one(sandboxed, response, PAIRS) == 1, response
    for response in (
        "", "print(3)", ADD.replace("+", "-"), ADD + "\nprint(1)", ADD + "\nraise SystemExit(1)", "x = (", "é\ud800",
        "import os\nos._exit(0)", "print('3\\n11')",
    ):  # fmt: skip
        assert one(sandboxed, response, PAIRS) == 0, response
    assert one(sandboxed, "print(3)", PAIRS, "code_stdio_fraction") == 0.5
    assert one(sandboxed, ADD + "\nif a > 1: raise ValueError", PAIRS, "code_stdio_fraction") == 0.5


def test_each_test_has_a_process_of_its_own(sandboxed: Verifiers) -> None:
    kept = "import os\nprint(os.path.exists('seen'))\nopen('seen', 'w').write('x')"
    assert one(sandboxed, kept, [{"input": str(n), "output": "False"} for n in range(5)]) == 1


def test_large_inputs_and_outputs_come_in_parts(sandboxed: Verifiers) -> None:
    cases = [{"input": "x" * 900_000, "output": "y" * 700_000} for _ in range(4)]
    assert one(sandboxed, "input()\nprint('y' * 700_000)", cases) == 1


@pytest.mark.long
def test_a_program_that_does_not_end_is_counted(sandboxed: Verifiers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train_plugins.verifiers.stdin_programs.SECONDS", 0.3)
    before = sandboxed.timeouts
    assert one(sandboxed, "while True: pass", PAIRS) == 0
    assert sandboxed.timeouts == before + 1
    half = ADD + "\nwhile a > 1: pass"
    assert one(sandboxed, half, PAIRS, "code_stdio_fraction") == 0.5 and sandboxed.timeouts == before + 1


def test_the_script_in_a_response() -> None:
    assert script("a = 1") == "a = 1"
    assert script("```python\ndef f(): pass\n```\nthen\n```python\nprint(1)\n```\n```\n1\n```") == "print(1)\n"
