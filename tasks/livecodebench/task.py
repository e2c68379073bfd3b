"""LiveCodeBench, code generation, in the OLMo 3 regime (allenai/olmes `livecodebench_codegeneration::olmo3:adapt`).

The code between the last two lines with a fence is run on the public and the private tests; a sample passes if every
test does. `programs.py` holds the rules of the official harness, `cases.py` the decoding of tests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.sandbox.scores import scored, verdicts
from olmes_suite.scoring import fences, module_beside, sandboxed

DROPPED = "tests_dropped"
"""Flag of a document with private tests that could not be decoded; its public tests alone are run."""
SYSTEM = (
    "You are an expert Python programmer. You will be given a question (problem specification) and will generate a "
    "correct Python program that matches the specification and passes all tests."
)
_STARTER = (
    "You will use the following starter code to write the solution to the problem and enclose your code within "
    "delimiters.\n```python\n{starter_code}\n```"
)
_STDIN = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample "
    "inputs). Enclose your code within delimiters as follows. Ensure that when the python program runs, it reads the "
    "inputs, runs the algorithm and writes output to STDOUT.\n```python\n# YOUR CODE HERE\n```"
)
_CONCISE = "Provide CONCISE reasoning on how to arrive at the answer"


def _cases() -> ModuleType:
    return module_beside(__file__, "cases.py")


def _programs() -> ModuleType:
    return module_beside(__file__, "programs.py")


def _text(doc: Mapping[str, Any], where: str) -> str:
    starter = doc["starter_code"]
    form = _STARTER.format(starter_code=starter) if starter.strip() else _STDIN
    return (
        f"### Question:\n{doc['question_content']}\n\n### Format:\n{_CONCISE}{where}.\n{form}\n\n"
        "### Answer: (use the provided format with backticks)\n\n"
    )


def think_text(doc: Mapping[str, Any]) -> str:
    """Return the user turn of the public configuration, which names the tags of a thought."""
    return _text(doc, " in the <think> </think> tag")


def plain_text(doc: Mapping[str, Any]) -> str:
    """Return the user turn of the paper's variant `_no_think_tags`, as published by allenai/olmo-eval."""
    return _text(doc, "")


def doc_to_target(doc: Mapping[str, Any]) -> None:
    """Return None: programs are run, not compared."""


@sandboxed()
def score(doc: Mapping[str, Any], responses: Sequence[str], sandbox: Any) -> tuple[Scored, list[Scored]]:
    """Compute pass@1, 5 and 10 over the responses, with 6 processor seconds for each test."""
    tests = _cases().of(doc)
    codes = [fences.between_last_fences(response) for response in responses]
    found = verdicts(codes, lambda code: _programs().verdict(code, tests, sandbox))
    document, samples = scored(found, ks=(1, 5, 10), extracted=codes)
    return _flagged(document, tests.dropped), samples


@sandboxed()
def score_repaired(doc: Mapping[str, Any], responses: Sequence[str], sandbox: Any) -> tuple[Scored, list[Scored]]:
    """Compute pass@1, 5 and 10 of the code that a careful reader would run, without the harness' prelude tricks."""
    tests = _cases().of(doc)
    codes = [fences.careful_code(response, tests.function or "") for response in responses]
    found = verdicts(codes, lambda code: _programs().verdict(code, tests, sandbox, careful=True))
    document, samples = scored(found, ks=(1, 5, 10), extracted=codes)
    return _flagged(document, tests.dropped), samples


def _flagged(document: Scored, dropped: bool) -> Scored:
    return Scored(document.scores, document.extracted, flags=(DROPPED,) if dropped else ())


def gold(doc: Mapping[str, Any]) -> str:
    """Return a program that answers every test from a table: the data set has no solutions."""
    tests = _cases().of(doc)
    if tests.function:
        table = "".join(
            f"    if list(args) == {_values(case.given)!r}: return {_value(case.wanted)!r}\n" for case in tests.cases
        )
        return f"```python\ndef {tests.function}(*args):\n{table}    return None\n```"
    table = {case.given: case.wanted for case in tests.cases}
    return f"```python\nimport sys\nanswers = {table!r}\nprint(answers[sys.stdin.read()])\n```"


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a program that answers nothing."""
    name = _cases().of(doc).function
    return f"```python\ndef {name}(*args):\n    return 'nothing'\n```" if name else "```python\nprint('nothing')\n```"


def _values(text: str) -> list[Any]:
    return [_value(line) for line in text.split("\n")]


def _value(text: str) -> Any:
    return json.loads(text)
