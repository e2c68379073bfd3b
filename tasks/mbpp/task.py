"""MBPP+ in the chat form of OLMo 3 (allenai/olmes `mbppplus::olmo3:adapt`), ten samples.

The prompt ends with the head of the canonical function. The program is that head with a docstring, then the code of the
response's last fence, then the tests. The head ends at the first colon, as in the reference, so that no program passes
where arguments have types (documents 4 and 6); the repaired variant leaves the head out where the code has its own.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.sandbox.scores import scored, verdicts
from olmes_suite.scoring import fences, sandboxed

_SECONDS = 20.0
_LOOP = "for i, "
_ASKED = (
    "\n\nProvide CONCISE reasoning on how to arrive at the answer, and make sure to finish the response with the "
    "following:\n\nHere is the completed function:\n\n```python\n(CODE)\n```\n"
    "where (CODE) is the code for the complete function."
)


def head(doc: Mapping[str, Any]) -> str:
    """Return the canonical code up to the first colon, which holds the imports and the function's head."""
    return str(doc["code"]).split(":")[0] + ":"


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the single user turn."""
    return f"{doc['prompt']}{head(doc)}{_ASKED}"


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """Return the canonical code."""
    return str(doc["code"])


def _program(doc: Mapping[str, Any], code: str) -> str:
    return f"{head(doc)}\n    '''doc_string'''\n\n{code}\n"


def _graded(
    doc: Mapping[str, Any], codes: Sequence[str], programs: Sequence[str], sandbox: Any
) -> tuple[Scored, list[Scored]]:
    name = entry_point(doc)
    source = tests(doc, name)
    found = verdicts(programs, lambda program: sandbox.check(program, source, _SECONDS, names=[name]))
    return scored(found, ks=(1, 5, 10), extracted=codes)


def tests(doc: Mapping[str, Any], name: str) -> str:
    """Return the code of the tests, which announces all inputs (about a hundred) at once."""
    head, loop, tail = str(doc["test"]).rpartition(_LOOP)
    return f"{head}{name}.prefetch(inputs)\n{loop}{tail}" if loop and "\ninputs = " in head else str(doc["test"])


def entry_point(doc: Mapping[str, Any]) -> str:
    """Return the name of the function that the tests call: the last one of the canonical code that they name."""
    defined = [node.name for node in _statements(doc["code"]) if isinstance(node, ast.FunctionDef)]
    named = [name for name in defined if re.search(rf"\b{re.escape(name)}\(", doc["test"])]
    return (named or defined)[-1]


def _statements(code: str) -> list[ast.stmt]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes such as "\\d" in the data set's code
        return ast.parse(code).body


@sandboxed()
def score(doc: Mapping[str, Any], responses: Sequence[str], sandbox: Any) -> tuple[Scored, list[Scored]]:
    """Compute pass@1, 5 and 10 over the responses, with 20 processor seconds each."""
    codes = [fences.completed_function(response) for response in responses]
    return _graded(doc, codes, [_program(doc, code) for code in codes], sandbox)


@sandboxed()
def score_repaired(doc: Mapping[str, Any], responses: Sequence[str], sandbox: Any) -> tuple[Scored, list[Scored]]:
    """Compute pass@1, 5 and 10 of the code that a careful reader would run."""
    name = entry_point(doc)
    codes = [fences.careful_code(response, name) for response in responses]
    defines = re.compile(rf"^(?:async\s+)?def\s+{re.escape(name)}\b|^{re.escape(name)}\s*=", re.M)
    imports = [node for node in _statements(doc["code"]) if isinstance(node, ast.Import | ast.ImportFrom)]
    above = "\n".join(map(ast.unparse, imports))
    programs = [f"{above}\n{code}\n" if defines.search(code) else _program(doc, code) for code in codes]
    return _graded(doc, codes, programs, sandbox)


def gold(doc: Mapping[str, Any]) -> str:
    """Return the canonical solution in the requested form."""
    return f"Here is the completed function:\n\n```python\n{doc['code'].strip()}\n```"


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a program that loads but raises: the tests of three documents assert nothing, so that None passes."""
    name = entry_point(doc)
    return f"Here is the completed function:\n\n```python\ndef {name}(*args, **kwargs):\n    raise ValueError\n```"
