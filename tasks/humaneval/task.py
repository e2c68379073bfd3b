"""HumanEval and HumanEval+ as the reference renders and runs them (allenai/olmes `codex_humaneval::tulu`, `…plus`).

As in the reference, the user turn ends with the same words as the assistant's prefix. The program is the prompt
followed by the unchanged response. Tests run in a separate process: see `olmes_suite/sandbox/grade.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.sandbox.scores import scored, verdicts
from olmes_suite.scoring import sandboxed

_SECONDS, _SECONDS_PLUS = 3.0, 20.0
_LOOP = "    for i, "


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the user turn."""
    return f"{doc['prompt']}Here is the completed function:\n\n```python\n"


def doc_to_target(doc: Mapping[str, Any]) -> None:
    """Return None: programs are run, not compared."""


def tests(doc: Mapping[str, Any]) -> str:
    """Return the code of the tests' process: the prompt, whose helpers some tests call, and the tests."""
    return f"{doc['prompt']}\n{doc['test']}\n"


def tests_plus(doc: Mapping[str, Any]) -> str:
    """Return the code of HumanEval+'s tests, which announces all inputs (up to a thousand) at once."""
    head, loop, tail = doc["test"].rpartition(_LOOP)
    announced = (
        f"{head}    candidate.prefetch(inputs)\n{loop}{tail}" if loop and "    inputs = " in head else doc["test"]
    )
    return tests({**doc, "test": announced})


def _graded(
    doc: Mapping[str, Any], responses: Sequence[str], sandbox: Any, source: str, seconds: float
) -> tuple[Scored, list[Scored]]:
    names = [doc["entry_point"]]
    programs = [f"{doc['prompt']}{response}\n" for response in responses]
    found = verdicts(programs, lambda program: sandbox.check(program, source, seconds, names=names, call="check"))
    return scored(found, ks=(1, 10))


@sandboxed()
def score(doc: Mapping[str, Any], responses: Sequence[str], sandbox: Any) -> tuple[Scored, list[Scored]]:
    """Compute pass@1 and pass@10 over the responses, with 3 processor seconds each."""
    return _graded(doc, responses, sandbox, tests(doc), _SECONDS)


@sandboxed()
def score_plus(doc: Mapping[str, Any], responses: Sequence[str], sandbox: Any) -> tuple[Scored, list[Scored]]:
    """Compute pass@1 and pass@10 with HumanEval+'s tests, with 20 processor seconds each."""
    return _graded(doc, responses, sandbox, tests_plus(doc), _SECONDS_PLUS)


def gold(doc: Mapping[str, Any]) -> str:
    """Return the canonical solution."""
    return doc["canonical_solution"]


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a program that loads but returns None."""
    return "    return None\n"
