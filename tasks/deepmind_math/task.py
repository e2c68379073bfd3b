"""DeepMind Mathematics, 0-shot, as the reference scores it (allenai/olmes `deepmind_math_*:0shot_cot(-v3)::tulu3`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.scoring import module_beside, scorer
from olmes_suite.scoring.patterns import between

_PHRASE = re.compile("Therefore, the final answer is ", re.IGNORECASE)
_HOPE_V0 = re.compile(". I hope it is correct.", re.IGNORECASE)
_HOPE_V3 = re.compile(r"\. I hope it is correct.", re.IGNORECASE)
_HOPE = "I hope it is correct"
_WRAPPERS = ((r"\$", r"\$"), (r"\\\(", r"\\\)"), (r"\*\*", r"\*\*"), (r"\*\*\*", r"\*\*\*"), (r"\\\[", r"\\\]"))
_SPECIAL = ("<end_of_turn>", "<|eot_id|>", "<s>", "</s>")


def _expressions() -> ModuleType:
    """Load `expressions.py` from this folder: a task's folder is not a package."""
    return module_beside(__file__, "expressions.py")


def doc_to_target(doc: Mapping[str, Any]) -> str:
    r"""Return the answer without the data set's `b'...\n'`."""
    return re.sub(r"\\n'$", "", re.sub(r"^b'", "", doc["answer"])).strip()


def extract(response: str, hope: re.Pattern[str]) -> str:
    """Extract the last answer before `hope`; otherwise all text after "the final answer is" or "answer is"."""
    if matches := list(between(_PHRASE, hope, response)):
        return clean(response[matches[-1].inner : matches[-1].inner_end])
    for lead in ("the final answer is", "answer is"):
        _, separator, rest = response.partition(lead)
        if separator:
            return clean(rest)
    return ""  # the reference's last resort, `.*`, always ends on an empty match


def clean(answer: str) -> str:
    """Remove closing words, special tokens, a trailing period and mark-up from an answer."""
    text = _without_hope(answer)
    for token in _SPECIAL:
        text = text.replace(token, "")
    text = re.sub(r"\.\s*$", "", text.strip()).strip()
    for left, right in _WRAPPERS:
        text = re.sub(f"^{left}(.*){right}$", r"\1", text).strip()
    return text


def _without_hope(text: str) -> str:
    r"""The text without every match of `\s*\.?\s*I hope it is correct.*`, in linear time."""
    pieces, position = [], 0
    while (found := text.find(_HOPE, position)) >= 0:
        kept = text[position:found].rstrip()
        pieces.append(kept[:-1].rstrip() if kept.endswith(".") else kept)
        end = text.find("\n", found)
        position = len(text) if end < 0 else end
    return "".join(pieces) + text[position:]


def judge(doc: Mapping[str, Any], answer: str) -> Scored:
    """Compare an answer: equal except for case, yes and no for true and false, otherwise equal as expressions."""
    target = doc_to_target(doc)
    if answer.lower() == target.lower():
        correct = True
    elif target in ("True", "False"):
        answer = answer.lower()
        correct = {"yes": "True", "no": "False"}.get(answer) == target
    else:
        correct = bool(_expressions().equal(target, answer))
    return Scored({"exact_match": float(correct)}, answer, failed=not answer)


@scorer(isolated=True)
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score a response to the current prompt (v3)."""
    return judge(doc, extract(response, _HOPE_V3))


@scorer(isolated=True)
def score_v0(doc: Mapping[str, Any], response: str) -> Scored:
    """Score a response to the older prompt, whose pattern accepts any character as the full stop."""
    return judge(doc, extract(response, _HOPE_V0))


def gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1."""
    return f"Therefore, the final answer is {doc_to_target(doc)}. I hope it is correct."


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0."""
    return f"{gold(doc)} No. Therefore, the final answer is qqzzx. I hope it is correct."
