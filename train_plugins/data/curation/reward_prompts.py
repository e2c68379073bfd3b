"""Builders of prompts with a verifiable answer: `messages`, `ground_truth` and `dataset` from a benchmark's train rows.

With `shots` the prompt is the one of Tülu 3's RLVR data (Table 22): exemplars of the evaluator's own task before the
question, in one turn of the user. Without, it is the question alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from olmes_suite.records import sha256
from olmes_suite.scoring import lm_eval_module
from train_plugins.data import forms
from train_plugins.data.curation import constraint_draws
from train_plugins.data.fields import plain
from train_plugins.verifiers.task_modules import task

Builder = Literal["gsm8k", "math", "constraints"]
SHOTS: Mapping[Builder, int] = {"gsm8k": 8, "math": 4, "constraints": 0}
"""Exemplars that a builder has."""
_SPACES = (
    ("expression  $", "expression $"), (". Therefore, ", ".\nTherefore, "), (". Also, ", ".\nAlso, "),
    ("$n$:\n\\begin", "$n$: \\begin"), ("nonzero,\nfind", "nonzero, find"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Build:
    """The data set that RLVR prompts are built from, and the settings of the build."""

    builder: Builder
    shots: int = 0
    constraints: tuple[int, ...] = (1, 3)
    """The least and the largest number of constraints in a prompt."""
    seed: int = 0

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row with `messages`, `ground_truth` and `dataset`. Raises ValueError."""
        return _BUILDERS[self.builder](row, self)


def _gsm8k(row: Mapping[str, Any], build: Build) -> dict[str, Any]:
    question, answer = _text(row, "question"), _text(row, "answer")
    if "####" not in answer:
        raise ValueError("an 'answer' without ####, after which GSM8K has its number")
    truth = answer.rpartition("####")[2].strip().replace(",", "")
    return _made(_asked(question, _exemplars("gsm8k", build.shots)), truth, "gsm8k")


def _math(row: Mapping[str, Any], build: Build) -> dict[str, Any]:
    problem, solution = _text(row, "problem"), _text(row, "solution")
    found = task("math").boxed(solution)
    if not found or not found.strip():
        raise ValueError(r"a 'solution' without an answer in \boxed{}")
    return _made(_asked(problem, _exemplars("math", build.shots)), found, "math")


def _constraints(row: Mapping[str, Any], build: Build) -> dict[str, Any]:
    """Add constraints to the first question of a conversation, or to a prompt; the draw depends on its text alone."""
    asked = _first_question(row)
    rng = random.Random(sha256(f"{build.seed} {asked}"))
    drawn = constraint_draws.draw(constraint_draws.load(), rng.randint(*build.constraints), rng, asked)
    truth = json.dumps(constraint_draws.truth(drawn), ensure_ascii=False)
    return _made(constraint_draws.prompt(asked, drawn), truth, "ifeval")


_BUILDERS: Mapping[Builder, Callable[[Mapping[str, Any], Build], dict[str, Any]]] = {
    "gsm8k": _gsm8k, "math": _math, "constraints": _constraints,
}  # fmt: skip


def _made(prompt: str, truth: str, verifier: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}], "ground_truth": truth, "dataset": verifier}


def _asked(question: str, exemplars: Sequence[tuple[str, str]]) -> str:
    if not exemplars:
        return question
    shown = [f"Question: {asked}\nAnswer:{answer}" for asked, answer in exemplars]
    return "\n\n".join([*shown, f"Question: {question}"])


@lru_cache(maxsize=16)
def _exemplars(name: str, shots: int) -> tuple[tuple[str, str], ...]:
    """Return the first exemplars of a task, without Minerva's closing sentence, as Tülu 3's data has them."""
    if not shots:
        return ()
    if name == "gsm8k":
        return tuple((one["question"], one["target"]) for one in task(name).fewshot(None)[:shots])
    samples = [
        (one["problem"], one["solution"]) for one in lm_eval_module("minerva_math/utils.py").list_fewshot_samples()
    ]
    samples[0] = (samples[0][0] + "}", samples[0][1])  # the data has this stray brace too
    return tuple((_spaced(asked), _spaced(answer.partition("\nFinal Answer:")[0])) for asked, answer in samples[:shots])


def _spaced(text: str) -> str:
    """Return an exemplar with the white space that it has in Tülu 3's data."""
    for old, new in _SPACES:
        text = text.replace(old, new)
    return text


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"no {column!r} (columns: {', '.join(map(str, row)) or 'none':.200})")
    return value


def _first_question(row: Mapping[str, Any]) -> str:
    if isinstance(row.get("prompt"), str) and row["prompt"].strip():
        return str(row["prompt"])
    _, found = forms.converted(row, "conversation", None)
    asked = next((turn["content"] for turn in plain(found["messages"]) if turn["role"] == "user"), "")
    if not asked.strip():
        raise ValueError("no question of the user")
    return str(asked)
