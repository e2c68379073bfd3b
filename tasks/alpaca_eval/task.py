"""AlpacaEval 2: a judge compares each output with the baseline's, weighted by its token probabilities.

Protocol of the `alpaca_eval` package (0.6.6, annotator `weighted_alpaca_eval_gpt4_turbo`): one token, of which the
probabilities of "m" and "M" are the preference; the order of the two outputs is drawn per instruction; equal outputs
are a tie that is not asked about; an answer without either token is no preference and leaves the win rate's
denominator. The two outputs are put into the prompt as they stand, also where they spell chat markers, which the
package takes for the start of another message.
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
"""The package's seed of the order."""
PREDICTED, LENGTH = "lc_predicted", "output_length"
"""Columns of a document beside its metrics: the regression's prediction, and the output's length in characters."""


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """The instruction, as it stands."""
    return doc["instruction"]


def doc_to_target(doc: Mapping[str, Any]) -> None:
    """None: there is no reference answer."""


@functools.lru_cache(maxsize=1)
def _prompt() -> dict[str, str]:
    return yaml.safe_load((Path(__file__).parent / "judge_prompt.yaml").read_text(encoding="utf-8"))


def switched(instruction: str) -> bool:
    """The candidate's output stands first; drawn as the package draws it."""
    return random.Random(f"is_switched_outputs{instruction}{SEED}").choices([False, True])[0]


def question(doc: Mapping[str, Any], response: str) -> Question:
    """What the judge is asked about one output."""
    outputs = (response, doc["output"]) if switched(doc["instruction"]) else (doc["output"], response)
    parts = {"instruction": doc["instruction"], "output_1": outputs[0], "output_2": outputs[1]}
    user = re.sub(r"{(instruction|output_1|output_2)}", lambda match: parts[match[1]], _prompt()["user"])
    return Question(
        messages=(("system", _prompt()["system"]), ("user", user)), max_tokens=1, temperature=1.0, top_logprobs=5
    )


def preference(doc: Mapping[str, Any], answer: Answer) -> float | None:
    """From 0 (the baseline's output is better) to 1 (the candidate's is); None where the judge names neither."""
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
    """Preferences for every response; the first one of each document goes into the length-controlled win rate.

    Raises MissingData where the judge gave no preference at all: there is nothing to make a score of.
    """
    places = [(i, s) for i, item in enumerate(items) for s in range(len(item.responses))]
    preferences: dict[tuple[int, int], float | None] = {
        (i, s): 0.5 for i, s in places if items[i].responses[s] == items[i].doc["output"]
    }
    asked = [place for place in places if place not in preferences]
    questions = [question(items[i].doc, items[i].responses[s]) for i, s in asked]
    for position, answer in tools.get("judge").ask(questions):
        i, s = asked[position]
        preferences[i, s] = preference(items[i].doc, answer)
    first = [preferences[i, 0] for i in range(len(items))]
    if all(found is None for found in first):
        raise MissingData(f"the judge's answers name neither output (m or M), in none of {len(items)} documents")
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


def _scored(found: float | None, response: str) -> Scored:
    scores = {"win_rate": found, "discrete_win_rate": None, LENGTH: float(len(response))}
    if found is not None:
        scores["discrete_win_rate"] = 0.5 if found == 0.5 else float(found > 0.5)
    return Scored(scores, None if found is None else f"{found:.6f}", failed=found is None)


def _with_length_control(sample: Scored, fitted: Controlled, place: int) -> Scored:
    scores = {
        **sample.scores,
        "length_controlled_winrate": fitted.scores[place],
        PREDICTED: fitted.predicted[place],
    }
    return Scored(scores, sample.extracted, sample.failed)


def summary(instances: Sequence[Instance]) -> dict[str, Estimate]:
    """The package's other figures: mean length in characters, and the standard error of the predictions."""
    lengths = mean([float(i.scored.scores[LENGTH] or 0.0) for i in instances])
    predicted = mean([float(i.scored.scores[PREDICTED] or 0.0) for i in instances])
    found = {"avg_length": Estimate(lengths.value, lengths.stderr, lengths.ci95)}
    if predicted.stderr is not None:
        found["lc_standard_error"] = Estimate(predicted.stderr)
    return found
