"""The prompts of DeepMind Mathematics, which depend on a task's category."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olmes_suite.tasks.task import SuiteTask

_HEAD = "Solve the following math problem efficiently:\n"
_CONCLUDE = 'conclude with "Therefore, the final answer is {}. I hope it is correct."'
_SHOW = (
    '\n\nShow your work and conclude with the exact phrasing "Therefore, the final answer is [answer]. I hope it is'
    ' correct." where [answer] is just the final number'
)
_NOTES = (
    "Note the formatting for the following answer types:\n"
    "- If the answer is a list (e.g., when there are two solutions to an equation), unless otherwise specified, present"
    " the solutions in a list separated by commas ordering them from the smallest to biggest  e.g.: 2, 10\n"
    "- Powers should be written with **, for instance x to the power of 2 should be written as x**2\n"
    "- Use * for multiplication, e.g.: 2*x"
)
_FRACTIONS = "\n- For fractions, separate the numerator and denominator with a slash (/) e.g.: -2/7"


@functools.lru_cache(maxsize=1)
def sample_answers() -> dict[str, list[str]]:
    """Map each category to its sample answers: three, or two where only True and False occur."""
    answers: dict[str, list[str]] = json.loads(
        Path(__file__).with_name("sample_answers.json").read_text(encoding="utf-8")
    )
    return answers


def unwrap(text: str) -> str:
    r"""Return the text within the data set's `b'...\n'`."""
    return re.sub(r"\\n'$", "", re.sub(r"^b'", "", text)).strip()


def prompt_v0(question: str) -> str:
    """Return the older prompt, which is the same for all categories."""
    example = f" or expression that solves the problem. E.g., if the answer is 6, {_CONCLUDE.format(6)}\n"
    return f"{_HEAD}{question}{_SHOW}{example}{_NOTES}"


def prompt_v3(question: str, category: str) -> str:
    """Return the prompt of the paper's figure 45, with sample answers of the category."""
    lead = (
        ", expression, or answer label representing the solution.  Some example answers from this question category:\n"
    )
    examples = "\n".join(
        f"- If the answer is {answer}, {_CONCLUDE.format(answer)}" for answer in sample_answers()[category]
    )
    return f"{_HEAD}{question}{_SHOW}{lead}{examples}\n\n{_NOTES}{_FRACTIONS}"


class DeepMindMathTask(SuiteTask):
    """A category of DeepMind Mathematics; `metadata: {prompt: v0}` selects the older prompt."""

    def doc_to_text(self, doc: Mapping[str, Any], doc_to_text: Any = None) -> str:
        """Return the user turn."""
        question = unwrap(doc["question"])
        if (self.config.metadata or {}).get("prompt") == "v0":
            return prompt_v0(question)
        return prompt_v3(question, str(self.config.dataset_name))
