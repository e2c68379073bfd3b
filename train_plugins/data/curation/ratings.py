"""Ratings of answers by a judge: one request for each aspect with all answers in it, in random order.

A judge's answer counts only where it has exactly one rating from 1 to 5 for each answer. Otherwise the judge is told
what is wrong and asked again; in the end the prompt is dropped and counted. Nothing is filled in.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.records import Response, canonical_json, sha256
from train_plugins.data.curation.generation.completions import Ask, Completer, Failed, Messages

if TYPE_CHECKING:
    from train_plugins.data.curation.candidates import Candidate
    from train_plugins.data.curation.prompt_rows import Prompt

SHIPPED = Path(__file__).parent / "aspects.yaml"
EXAMPLE = Path(__file__).parent / "rating_example.yaml"
LOW, HIGH = 1, 5
SCALE = tuple(map(str, range(LOW, HIGH + 1)))
SYSTEM = "You compare answers of assistants. You judge each by the same measure, whatever its place in the list."
_ANSWER = r"(?:answer|text|response|output|candidate|completion|reply)"
_PROSE = r"(?:['’]s|,)?[ \t]+(?!rating\b)[^\W\d_]"
"""What follows a number in a sentence, such as "Answer 2 is weaker"."""
_HEADING = re.compile(
    rf"""^[^\w\n]*{_ANSWER}\s*\#?\s*(\d+)\b(?!{_PROSE})   # a line that starts with "Answer 1"
       | ^[^\w\n]*(\d+)[^\w\n]*$                          # a line with a number alone: "[1]"
       | ^[^\w\n]*(\d+)\s*[.):]\W*(?=rating\b)            # an item of a list: "1. Rating"
       | ["'](?:{_ANSWER}(?:[ _]?(?:id|number))?|id|index|number)["']\s*:\s*["']?(?:{_ANSWER}\s*)?(\d+)  # JSON: "id": 1
       | ["'](?:{_ANSWER}[ _]?)?(\d+)["']\s*:             # JSON: "Answer 1": {{
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_MENTION = re.compile(
    rf"""^[^\w\n]*{_ANSWER}\s*\#?\s*(\d+)\b(?={_PROSE})   # "Answer 1 is better. Rating"
       | \b{_ANSWER}\s*\#?\s*(\d+)[^\w\n"']*(?=rating\b)  # "Answer 1: Rating", but also "better than answer 1. Rating"
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
"""A heading only where no other one waits for its rating; otherwise an answer with which another one is compared."""
_GAP = r"[ \t*_(]{0,4}"
_UNIT = rf"(?:{_GAP}(?:stars?|points?)\b)?"
_RATING = re.compile(
    rf"""\brating\b\W*?[:=：][ \t*_"'\[(]*
    (?P<value>[-−+]?\d+(?:[.,]\d+)?|n/?a\b)
    (?:{_UNIT}{_GAP}(?:/|(?:out\ )?of\b)\s*5\b(?![.,]?\d)
     | (?P<rest>(?:{_UNIT}{_GAP}(?:%|(?:/|(?:out\ )?of\b|or\b|to\b|and\b|[-=]*>|→|[-–—~])?{_GAP}\d+(?:[.,]\d+)?))*)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""A rating, without "/5" or "out of 5"; `rest` makes it another scale or a range, such as "/10" or "-5"."""

_REASON = re.compile(r"\W*(?:rationale|reason|explanation|justification|comment|why)", re.IGNORECASE)
_LABEL = re.compile(rf"\W*(?:for\W+|of\W+)?{_ANSWER}\W*\d", re.IGNORECASE)
"""An answer's name after its rating: "Rating: 4 (Answer 2)"."""


class Unreadable(ValueError):
    """A judge's answer has not exactly one rating for each text."""


@dataclass(frozen=True, slots=True)
class Aspect:
    """An aspect that the judge rates, and the meaning of each rating."""

    name: str
    asks: str
    scale: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rated:
    """One reading of one aspect of a prompt's answers."""

    aspect: str
    repeat: int
    order: tuple[int, ...]
    """The candidate at each place of the judge's list."""
    ratings: tuple[int, ...]
    """The rating of each candidate, by its own number."""


@dataclass(slots=True)
class Ratings:
    """The ratings of one prompt's answers."""

    read: list[Rated] = field(default_factory=list)
    problem: str | None = None
    """Why the prompt is dropped: ratings_unreadable or judge_failed; None where all aspects were read."""
    detail: str = ""

    def first(self) -> list[Rated]:
        """Return the reading of each aspect that scores are made from."""
        return [one for one in self.read if one.repeat == 0]

    def scores(self) -> list[float]:
        """Return the mean over the aspects, for each candidate."""
        columns = zip(*(one.ratings for one in self.first()), strict=True)
        return [sum(column) / len(column) for column in columns]

    def of(self, candidate: int) -> dict[str, int]:
        """Return a candidate's rating for each aspect."""
        return {one.aspect: one.ratings[candidate] for one in self.first()}


@dataclass(frozen=True, slots=True)
class _Open:
    """A request to the judge that is not read yet."""

    prompt: int
    aspect: Aspect
    repeat: int
    order: tuple[int, ...]
    first: Messages
    """The request as it is asked the first time."""
    messages: Messages


@lru_cache(maxsize=1)
def aspects() -> Mapping[str, Aspect]:
    """Return the shipped aspects by name."""
    import yaml

    found: dict[str, Any] = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    return {name: Aspect(name, one["asks"], tuple(one["scale"])) for name, one in found.items()}


def question(prompt: str, texts: Sequence[str], aspect: Aspect) -> str:
    """Return the request to rate texts on one aspect."""
    scale = "\n".join(f"{number}: {meaning}" for number, meaning in enumerate(aspect.scale, LOW))
    shown = "\n\n".join(f"<answer {number}>\n{text}\n</answer {number}>" for number, text in enumerate(texts, 1))
    return (
        f"Rate {len(texts)} answers to one prompt by their {aspect.name.replace('_', ' ')}.\n\n{aspect.asks}\n\n"
        f"{scale}\n\n<prompt>\n{prompt}\n</prompt>\n\n{shown}\n\n{_form(len(texts))}"
    )


@lru_cache(maxsize=1)
def _example() -> Mapping[str, Any]:
    import yaml

    found: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    return found


def example(aspect: Aspect, count: int, rng: random.Random) -> Messages:
    """Return a rated example of one aspect as two turns, with up to `count` answers drawn in random order.

    A small judge that imitates the example's ratings favours no place by it, because their order is random too.
    """
    answers = _example()["answers"]
    drawn = rng.sample(answers, min(count, len(answers)))
    blocks = [
        f"Answer {place}\nRating: {one[aspect.name][0]}\nRationale: {one[aspect.name][1]}"
        for place, one in enumerate(drawn, 1)
    ]
    asked = question(_example()["prompt"], [one["text"] for one in drawn], aspect)
    return (("user", asked), ("assistant", "\n\n".join(blocks)))


def _form(count: int) -> str:
    """Return how the judge has to answer."""
    last = f", up to Answer {count}" if count > 2 else ""
    return (
        f"Write exactly {count} blocks of this form, in the order of the answers, and nothing else{last}:\n\n"
        "Answer 1\nRating: a whole number from 1 to 5\nRationale: one sentence"
    )


def parsed(text: str, count: int) -> list[int]:
    """Return the ratings of answers 1 to `count` in order. Raises Unreadable, which says what is wrong.

    A rating belongs to the heading before it, even if reasons that name other answers stand between them. Without any
    heading, the ratings must come in order, with nothing but reasons after each: other words may name another order.
    """
    found = _found(text)
    if len(found) != count:
        raise Unreadable(f"it has {len(found)} ratings instead of {count}")
    numbers = [number for number, _ in found]
    headed = any(number is not None for number in numbers)
    if headed and sorted(numbers, key=lambda number: number or 0) != list(range(1, count + 1)):
        shown = ", ".join("none" if number is None else str(number) for number in numbers)
        raise Unreadable(f"its ratings are for the answers {shown} instead of 1 to {count}")
    if not headed and not _bare(text):
        raise Unreadable("it does not say which answer each rating is for")
    values = [value for _, value in (sorted(found, key=lambda one: one[0] or 0) if headed else found)]
    for value in values:
        if value not in SCALE:
            raise Unreadable(f"{value} is not a whole number from {LOW} to {HIGH}")
    return [int(value) for value in values]


def _found(text: str) -> list[tuple[int | None, str]]:
    """Return each rating as it is written, after the number of its heading."""
    found: list[tuple[int | None, str]] = []
    heading: int | None = None
    waits = False
    marks = [mark for pattern in (_HEADING, _MENTION, _RATING) for mark in pattern.finditer(text)]
    for mark in sorted(marks, key=lambda one: one.start()):
        if mark.re is _RATING:
            found.append((heading, mark["value"] + (mark["rest"] or "")))
            waits = False
        elif mark.re is _HEADING or not waits:
            heading, waits = int(mark[mark.lastindex or 0]), True
    return found


def _bare(text: str) -> bool:
    """Whether a text has nothing but ratings, each with its reason after it."""
    spans = [mark.span() for mark in _RATING.finditer(text)]
    after = [text[end:start] for (_, end), (start, _) in zip(spans, [*spans[1:], (len(text), 0)], strict=True)]
    lines = [line for part in after for line in part.splitlines()[1:] if re.search(r"\w", line)]
    before = re.sub(r"\bjson\b", "", text[: spans[0][0]])
    return not re.search(r"\w", before) and all(map(_REASON.match, lines)) and not any(map(_LABEL.match, after))


def rate(
    judge: Completer, prompts: Sequence[Prompt], answers: Sequence[Sequence[Candidate]], *, names: Sequence[str],
    repeated: frozenset[int], tries: int, seed: int, with_example: bool = False,
) -> list[Ratings]:  # fmt: skip
    """Return the ratings of each prompt's answers. The prompts numbered `repeated` are rated twice.

    `with_example`: each request starts with a rated example.
    """
    found = [Ratings() for _ in prompts]
    still_open = [
        _asked(n, prompt, answers[n], aspects()[name], repeat=repeat, seed=seed, with_example=with_example)
        for n, prompt in enumerate(prompts) for name in names for repeat in range(1 + (n in repeated))
    ]  # fmt: skip
    for attempt in range(tries):
        # where the judge samples, the same words said again are another answer; at temperature 0 they would be the same
        sample = attempt if judge.model.temperature > 0 else 0
        responses = judge.complete([Ask(one.messages, sample) for one in still_open])
        again = []
        for one, response in zip(still_open, responses, strict=True):
            retry = _read(one, response, found[one.prompt], last=attempt + 1 == tries)
            if retry is not None:
                again.append(retry)
        still_open = again
    for ratings in found:
        ratings.read.sort(key=lambda rated: (names.index(rated.aspect), rated.repeat))
    return found


def _asked(
    number: int, prompt: Prompt, answers: Sequence[Candidate], aspect: Aspect, *, repeat: int, seed: int,
    with_example: bool,
) -> _Open:  # fmt: skip
    texts = [one.text for one in answers]
    order = list(range(len(texts)))
    rng = random.Random(sha256(canonical_json([seed, prompt.messages, texts, aspect.name])))
    rng.shuffle(order)
    shown = example(aspect, len(texts), rng) if with_example else ()
    if repeat:
        order.reverse()  # surely another order, so that the same request does not come twice
    conversation = prompt.text if len(prompt.messages) == 1 else _transcript(prompt.messages)
    asked = question(conversation, [texts[place] for place in order], aspect)
    messages = (("system", SYSTEM), *shown, ("user", asked))
    return _Open(number, aspect, repeat, tuple(order), messages, messages)


def _transcript(messages: Messages) -> str:
    return "\n\n".join(f"[{role}]\n{content}" for role, content in messages)


def _read(one: _Open, response: Response | Failed, into: Ratings, *, last: bool) -> _Open | None:
    """Read a judge's answer into the prompt's ratings, or return the request with which it is asked again.

    A second rating, which only measures agreement, never drops a prompt.
    """
    if isinstance(response, Failed):
        if one.repeat == 0:
            into.problem, into.detail = "judge_failed", response.reason
        return None
    text = response.text or ""
    try:
        if response.unclosed:
            raise Unreadable("it ends inside a thought")
        in_order = parsed(text, len(one.order))
    except Unreadable as error:
        if last:
            if one.repeat == 0 and into.problem is None:
                into.problem, into.detail = "ratings_unreadable", f"{one.aspect.name}: {error}"
            return None
        told = f"Your answer cannot be used: {error}. {_form(len(one.order))}"
        messages = (*one.first, ("assistant", text or "(no answer)"), ("user", told))
        return replace(one, messages=messages)
    by_candidate = dict(zip(one.order, in_order, strict=True))
    ratings = tuple(by_candidate[number] for number in range(len(one.order)))
    into.read.append(Rated(one.aspect.name, one.repeat, one.order, ratings))
    return None
