"""AlpacaEval 2: a judge compares each output with the baseline's, weighted by its token probabilities.

Protocol of the `alpaca_eval` package (0.6.6, annotator `weighted_alpaca_eval_gpt4_turbo`): the judge answers with one
token, and the probabilities of "m" and "M" are the preference. The order of the two outputs is drawn for each
instruction. Equal outputs are a tie, without a question to the judge. An answer with neither token gives no preference
and is not in the win rate's denominator. The two outputs are put into the prompt unchanged, even if they contain chat
markers, which the package reads as the start of another message.
"""

from __future__ import annotations

import functools
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from olmes_suite.errors import MissingData
from olmes_suite.judges.base import Answer, Question
from olmes_suite.judges.length_control import Controlled, controlled
from olmes_suite.records import Instance, Scored
from olmes_suite.scoring import Item, deferred
from olmes_suite.scoring.tools import Tools
from olmes_suite.stats import Estimate, mean

SEED = 0
"""The package's seed for the order."""
PREDICTED, LENGTH = "lc_predicted", "output_length"
"""Columns of a document beside its metrics: the regression's prediction, and the output's length in characters."""


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the instruction, unchanged."""
    return doc["instruction"]


def doc_to_target(doc: Mapping[str, Any]) -> None:
    """Return None: there is no reference answer."""


@functools.lru_cache(maxsize=1)
def _prompt() -> dict[str, str]:
    return yaml.safe_load((Path(__file__).parent / "judge_prompt.yaml").read_text(encoding="utf-8"))


def switched(instruction: str) -> bool:
    """Whether the candidate's output comes first, drawn as in the package."""
    return random.Random(f"is_switched_outputs{instruction}{SEED}").choices([False, True])[0]


def question(doc: Mapping[str, Any], response: str) -> Question:
    """Build the question to the judge about one output."""
    outputs = (response, doc["output"]) if switched(doc["instruction"]) else (doc["output"], response)
    parts = {"instruction": doc["instruction"], "output_1": outputs[0], "output_2": outputs[1]}
    user = re.sub(r"{(instruction|output_1|output_2)}", lambda match: parts[match[1]], _prompt()["user"])
    return Question(
        messages=(("system", _prompt()["system"]), ("user", user)), max_tokens=1, temperature=1.0, top_logprobs=5
    )


def preference(doc: Mapping[str, Any], answer: Answer) -> float | None:
    """Return 0 (the baseline's output is better) to 1 (the candidate's is); None where the judge names neither."""
    mass = {"m": 0.0, "M": 0.0}
    for token, logprob in answer.first_token:
        if token in mass:
            mass[token] += math.exp(logprob)
    if not sum(mass.values()):
        return None
    first = mass["m"] / sum(mass.values())
    return first if switched(doc["instruction"]) else 1.0 - first


@deferred()
def score(items: Sequence[Item], tools: Tools) -> Iterator[tuple[int, Scored, list[Scored]]]:
    """Score every response by its preference; each document's first response counts in the length-controlled win rate.

    Raises MissingData where the judge gives no preference for any document, so that there is no score.
    """
    places = [(i, s) for i, item in enumerate(items) for s in range(len(item.responses))]
    preferences: dict[tuple[int, int], float | None] = {
        (i, s): 0.5 for i, s in places if items[i].responses[s] == items[i].doc["output"]
    }
    compared = [place for place in places if place not in preferences]
    questions = [question(items[i].doc, items[i].responses[s]) for i, s in compared]
    for position, answer in tools.get("judge").ask(questions):
        i, s = compared[position]
        preferences[i, s] = preference(items[i].doc, answer)
    first = [preferences[i, 0] for i in range(len(items))]
    if all(one is None for one in first):
        raise MissingData(
            f"the judge's answers name no output (m or M) in any of {len(items)} documents; check --judge"
        )
    fitted = controlled(
        first,
        [len(item.responses[0]) for item in items],
        [len(item.doc["output"]) for item in items],
        [item.doc_id for item in items],
        tools.get("length_control").gamed,
    )
    for i, item in enumerate(items):
        samples = [_scored(preferences[i, s], response) for s, response in enumerate(item.responses)]
        yield i, _with_length_control(samples[0], fitted, i), samples


def _scored(win_rate: float | None, response: str) -> Scored:
    scores = {"win_rate": win_rate, "discrete_win_rate": None, LENGTH: float(len(response))}
    if win_rate is not None:
        scores["discrete_win_rate"] = 0.5 if win_rate == 0.5 else float(win_rate > 0.5)
    return Scored(scores, None if win_rate is None else f"{win_rate:.6f}", failed=win_rate is None)


def _with_length_control(sample: Scored, fitted: Controlled, place: int) -> Scored:
    scores = {
        **sample.scores,
        "length_controlled_winrate": fitted.scores[place],
        PREDICTED: fitted.predicted[place],
    }
    return Scored(scores, sample.extracted, sample.failed)


def summary(instances: Sequence[Instance]) -> dict[str, Estimate]:
    """Compute the package's other figures: mean length in characters, and the standard error of the predictions."""
    lengths = mean([float(i.scored.scores[LENGTH] or 0.0) for i in instances])
    predicted = mean([float(i.scored.scores[PREDICTED] or 0.0) for i in instances])
    figures = {"avg_length": Estimate(lengths.value, lengths.stderr, lengths.ci95)}
    if predicted.stderr is not None:
        figures["lc_standard_error"] = Estimate(predicted.stderr)
    return figures
