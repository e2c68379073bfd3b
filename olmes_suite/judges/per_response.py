"""One question per response, and the answers gathered again by document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from olmes_suite.judges.base import Answer, Judge, Question
from olmes_suite.scoring.scorers import Doc, Item

Asks = Callable[[Doc, str], Question]


def per_response(items: Sequence[Item], judge: Judge, ask: Asks) -> Iterator[tuple[int, list[Answer]]]:
    """(position in `items`, an answer per response in their order), each as soon as it is complete.

    Raises RequestFailed where the judge gave up on a question.
    """
    places = [(position, sample) for position, item in enumerate(items) for sample in range(len(item.responses))]
    questions = [ask(items[position].doc, items[position].responses[sample]) for position, sample in places]
    open_: dict[int, dict[int, Answer]] = {}
    for number, answer in judge.ask(questions):
        position, sample = places[number]
        got = open_.setdefault(position, {})
        got[sample] = answer
        if len(got) == len(items[position].responses):
            yield position, [got[s] for s in sorted(got)]
            del open_[position]
