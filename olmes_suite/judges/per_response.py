"""Judging of single responses: one question per response, with the answers collected by document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from olmes_suite.judges.base import Answer, Judge, Question
from olmes_suite.scoring.scorers import Doc, Item

Asks = Callable[[Doc, str], Question]


def per_response(items: Sequence[Item], judge: Judge, ask: Asks) -> Iterator[tuple[int, list[Answer]]]:
    """Yield (position in `items`, an answer per response in order) as soon as a document is complete.

    Raises RequestFailed if a question fails permanently.
    """
    places = [(position, sample) for position, item in enumerate(items) for sample in range(len(item.responses))]
    questions = [ask(items[position].doc, items[position].responses[sample]) for position, sample in places]
    incomplete: dict[int, dict[int, Answer]] = {}
    for number, answer in judge.ask(questions):
        position, sample = places[number]
        answers = incomplete.setdefault(position, {})
        answers[sample] = answer
        if len(answers) == len(items[position].responses):
            yield position, [answers[s] for s in sorted(answers)]
            del incomplete[position]
