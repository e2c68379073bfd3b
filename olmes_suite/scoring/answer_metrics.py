"""Metrics of tasks that are a file of questions and answers: how a response is held against the accepted answers.

A metric is a function of a response and a reference; of several accepted answers the best counts. The comparisons are
those that people expect of the names, not those of a particular harness: `exact_match` does not drop punctuation inside
an answer, so that 3.5 is not 35.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation

from olmes_suite.scoring.multiple_choice import last_alone
from olmes_suite.scoring.scorers import last_match

_NUMBER = r"[-−+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|[-−+]?\.\d+"
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(response: str, answer: str) -> float:
    """Compare whole texts, without regard to case, surrounding white space and quotes, and a final full stop."""
    return float(_plain(response) == _plain(answer))


def _plain(text: str) -> str:
    text = " ".join(text.split()).casefold().strip("\"'“”‘’`* ")
    return text.removesuffix(".").rstrip("\"'“”‘’`* ")


def contains(response: str, answer: str) -> float:
    """Tell whether the answer stands in the response as whole words, without regard to case and white space."""
    wanted = re.escape(" ".join(answer.split()).casefold())
    return float(re.search(rf"(?<!\w){wanted}(?!\w)", " ".join(response.split()).casefold()) is not None)


def number(response: str, answer: str) -> float:
    """Compare the last number of the response with the last one of the answer; 1,000 and 1000.0 are equal."""
    found, wanted = last_number(response), last_number(answer)
    return float(found is not None and found == wanted)


def last_number(text: str) -> Decimal | None:
    """Return the last number in a text; None where there is none."""
    found = last_match(_NUMBER, text)
    try:
        return None if found is None else Decimal(found.replace(",", "").replace("−", "-"))
    except InvalidOperation:
        return None


def f1(response: str, answer: str) -> float:
    """Return the F1 of the words in common, without case, punctuation and articles.

    Source: the evaluation script of SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250).
    """
    given, wanted = _words(response), _words(answer)
    if not given or not wanted:
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted))


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.casefold().translate(_NO_PUNCTUATION)).split()


def stated_letter(response: str, letters: str) -> str:
    """Return the letter that a response chooses; "" where it names none. `letters` are the letters of the choices.

    The last "answer is X" or "answer: X" counts, otherwise the response's first word if it is a letter, otherwise the
    last letter that stands alone.
    """
    some = f"{letters[0]}-{letters[-1]}"
    stated = last_match(rf"(?i:answer)\W+(?:(?i:is|would be)\W+)?\(?([{some}])(?![\w'])", response)
    if stated:
        return stated
    first = re.match(rf"\W*([{some}])(?![\w'])", response)
    return first[1] if first else last_alone(some, response)


METRICS: Mapping[str, Callable[[str, str], float]] = {
    "exact_match": exact_match, "contains": contains, "number": number, "f1": f1,
}  # fmt: skip
"""Metrics of generated answers by name."""


def best(metric: str, response: str, answers: Sequence[str]) -> float:
    """Return the score of a response against the accepted answer that is nearest to it."""
    return max(METRICS[metric](response, answer) for answer in answers)
