r"""CRUXEval as the OLMo 3 suites ask it (allenai/olmes `cruxeval_{input,output}:pass@5`): plain text, 20 samples.

The response is put into an assertion about the document's function, which is run. It is code, not a value: in the input
task `lambda: f(1)` is a true statement, and so is `f(1) or True`. The repaired variant takes the response for what the
prompt requests, a call with literal arguments or a literal value, and compares values.
"""

from __future__ import annotations

import ast
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.sandbox.scores import scored
from olmes_suite.sandbox.verdict import Verdict
from olmes_suite.scoring import sandboxed

_SECONDS = 3.0
_INPUT = (
    "You will be given a function f and an output in the form f(??) == output. Find any input such that executing f on "
    "the input leads to the given output. There may be multiple answers, but you should only output one. Think step by "
    "step before arriving at an answer. Finally, surround the answer, with no additional words, with [ANSWER] and "
    "[/ANSWER] tags. Express your answer as a function call that when executed will give the output.\n"
)
_OUTPUT = (
    "Based on the given Python code, which may contain errors, complete the assert statement with the output when "
    "executing the code on the given test case. Do NOT output any extra information, even if the function is incorrect "
    "or incomplete. Do NOT output a description for the assert.\n"
)
_COUNTS = (
    "def f(my_list):\n    count = 0\n    for i in my_list:\n        if len(i) % 2 == 0:\n            count += 1\n"
    "    return count\n"
)
_JOINS = "def f(s1, s2):\n    return s1 + s2\n"
_INPUT_SHOTS = ((_COUNTS, 'f(["mq", "px", "zy"])', "3"), (_JOINS, 'f("ba", "nana")', '"banana"'))


def input_text(doc: Mapping[str, Any]) -> str:
    """Return the prompt of the input task: two examples and the question."""
    shots = [f"{_asked_input(code, output)}\n{call}\n[/ANSWER]\n\n\n" for code, call, output in _INPUT_SHOTS]
    return "".join([_INPUT, *shots, _asked_input(doc["code"], doc["output"])])


def _asked_input(code: str, output: str) -> str:
    return f"[PYTHON]\n{code}\nassert f(??) == {output}\n[/PYTHON]\n[ANSWER]"


def output_text(doc: Mapping[str, Any]) -> str:
    """Return the prompt of the output task: one example and the question."""
    shot = "\ndef f(n):\n    return n\n\nassert f(17) == 17\n\n"
    return f"{_OUTPUT}{shot}\n{doc['code']}\nassert f({doc['input']}) =="


def doc_to_target(doc: Mapping[str, Any]) -> None:
    """Return None: assertions are run, not compared."""


def _graded(doc: Mapping[str, Any], statements: Sequence[str], sandbox: Any) -> tuple[Scored, list[Scored]]:
    verdicts = [_holds(f"{doc['code']}\n{statement}\n", sandbox) for statement in statements]
    return scored(verdicts, ks=(1, 5))


def _holds(program: str, sandbox: Any) -> Verdict:
    """Run a program that must reach its end: an early exit has no mark at the end of its output."""
    mark = secrets.token_hex(16)
    ran = sandbox.run(f"{program}\nprint({mark!r})\n", timeout=_SECONDS)
    if ran.verdict.passed and not ran.stdout.endswith(f"{mark}\n"):
        return Verdict("fail", "the program ended before the assertion", ran.verdict.cpu, ran.verdict.wall)
    verdict: Verdict = ran.verdict
    return verdict


@sandboxed()
def input_score(doc: Mapping[str, Any], responses: Sequence[str], sandbox: Any) -> tuple[Scored, list[Scored]]:
    """Compute pass@1 and pass@5 of the assertion that the response equals the output."""
    return _graded(doc, [f"assert {response.strip()} == {doc['output']}" for response in responses], sandbox)


@sandboxed()
def output_score(doc: Mapping[str, Any], responses: Sequence[str], sandbox: Any) -> tuple[Scored, list[Scored]]:
    """Compute pass@1 and pass@5 of the assertion that the call equals the response."""
    return _graded(doc, [f"assert f({doc['input']}) == {response}" for response in responses], sandbox)


_FALSE = "assert False"


@sandboxed()
def input_repaired(doc: Mapping[str, Any], responses: Sequence[str], sandbox: Any) -> tuple[Scored, list[Scored]]:
    """Compute pass@1 and pass@5 of responses that are a call of `f` with literal arguments, or such arguments."""
    return _graded(doc, [_literal_call(_answer(response), doc["output"]) for response in responses], sandbox)


@sandboxed()
def output_repaired(doc: Mapping[str, Any], responses: Sequence[str], sandbox: Any) -> tuple[Scored, list[Scored]]:
    """Compute pass@1 and pass@5 of responses that are a literal value, alone or at the end of the assertion."""
    statements = []
    for response in responses:
        value = _answer(response).removeprefix(f"assert f({doc['input']}) ==").strip()
        statements.append(f"assert f({doc['input']}) == ({value})" if _is_literal(value) else _FALSE)
    return _graded(doc, statements, sandbox)


def _answer(response: str) -> str:
    """Return the text in the answer tags, if there are any, without a fence."""
    text = response.rpartition("[ANSWER]")[2].partition("[/ANSWER]")[0].strip()
    if text.startswith("```"):
        text = text.strip("`").removeprefix("python").strip()
    return text.strip("`").strip()


def _literal_call(text: str, output: str) -> str:
    text = text.removeprefix("assert").removesuffix(f"== {output}").strip()
    if text.startswith("f(") and text.endswith(")"):
        try:
            call = ast.parse(text, mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return _FALSE
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "f":
            return _FALSE
        given = [value.value if isinstance(value, ast.Starred) else value for value in call.args]
        values = [*given, *(keyword.value for keyword in call.keywords)]
        return f"assert {text} == {output}" if all(_is_literal(ast.unparse(value)) for value in values) else _FALSE
    return f"assert f({text}) == {output}" if _is_literal(f"({text},)") else _FALSE


def _is_literal(text: str) -> bool:
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    return True


def input_gold(doc: Mapping[str, Any]) -> str:
    """Return the data set's own input."""
    return f"\nf({doc['input']})\n"


def output_gold(doc: Mapping[str, Any]) -> str:
    """Return the data set's own output."""
    return f" {doc['output']}"


def input_corrupt(doc: Mapping[str, Any]) -> str:
    """Return a call that is no call of the function."""
    return "\nno_such_function(1)\n"


def output_corrupt(doc: Mapping[str, Any]) -> str:
    """Return a value that no document has."""
    return " 'no such value, 98765'"
