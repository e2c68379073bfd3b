"""HumanEval+ in the chat form of OLMo 3 (allenai/olmes `codex_humanevalplus::olmo3:adapt`), ten samples.

The program is the prompt followed by the code of the response's last fence: without code it is the prompt's function,
which does nothing. Words such as `py` or `Python` behind the fence stay in the code, as in the reference; the repaired
variant drops them and puts the prompt only in front of code that does not define the function.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.sandbox.scores import scored, verdicts
from olmes_suite.scoring import fences, module_beside, sandboxed

_SECONDS = 20.0
_ASKED = (
    "\nProvide CONCISE reasoning on how to arrive at the answer, and make sure to finish the response with the "
    "following, where (CODE) is the code for the complete function:\n\n"
    "Here is the completed function:\n\n```python\n(CODE)\n```"
)


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the single user turn."""
    return f"Complete the following function:\n{doc['prompt']}{_ASKED}"


def _graded(
    doc: Mapping[str, Any], codes: Sequence[str], programs: Sequence[str], sandbox: Any
) -> tuple[Scored, list[Scored]]:
    tests = module_beside(__file__, "task.py").tests_plus(doc)
    names = [doc["entry_point"]]
    found = verdicts(programs, lambda program: sandbox.check(program, tests, _SECONDS, names=names, call="check"))
    return scored(found, ks=(1, 10), extracted=codes)


@sandboxed()
def score(doc: Mapping[str, Any], responses: Sequence[str], sandbox: Any) -> tuple[Scored, list[Scored]]:
    """Compute pass@1 and pass@10 with HumanEval+'s tests, with 20 processor seconds each."""
    codes = [fences.completed_function(response) for response in responses]
    return _graded(doc, codes, [f"{doc['prompt']}{code}\n" for code in codes], sandbox)


@sandboxed()
def score_repaired(doc: Mapping[str, Any], responses: Sequence[str], sandbox: Any) -> tuple[Scored, list[Scored]]:
    """Compute pass@1 and pass@10 of the code that a careful reader would run."""
    codes = [fences.careful_code(response, doc["entry_point"]) for response in responses]
    defines = re.compile(
        rf"^\s*(?:async\s+)?def\s+{re.escape(doc['entry_point'])}\b|^{re.escape(doc['entry_point'])}\s*=", re.M
    )
    imports = "\n".join(line for line in doc["prompt"].splitlines() if line.startswith(("import ", "from ")))
    programs = [
        f"{imports}\n{code}\n"
        if defines.search(code) and not code.startswith((" ", "\t"))
        else f"{doc['prompt']}{code}\n"
        for code in codes
    ]
    return _graded(doc, codes, programs, sandbox)


def gold(doc: Mapping[str, Any]) -> str:
    """Return the canonical solution in the requested form."""
    return f"Here is the completed function:\n\n```python\n{doc['prompt']}{doc['canonical_solution']}\n```"


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a program that loads but returns None."""
    return f"Here is the completed function:\n\n```python\n{doc['prompt']}    return None\n```"
