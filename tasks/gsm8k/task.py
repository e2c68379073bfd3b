"""GSM8K as the reference renders and scores it (allenai/olmes `gsm8k::tulu`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.scoring import exact_match, lm_eval_config, scorer

_NUMBER = r"[-+]?\d*\.\d+|\d+"


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the question turn; `Answer:` is the assistant's prefix."""
    return f"Question: {doc['question']}"


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """Return the number after `####`."""
    return extract(doc["answer"].split("####")[-1].strip())


def fewshot(task: Any) -> list[dict[str, str]]:
    """Return the eight exemplars of lm-eval's `gsm8k_cot`, ending with the reference's "So the answer is"."""
    samples = lm_eval_config("gsm8k/gsm8k-cot.yaml")["fewshot_config"]["samples"]
    return [
        {"question": s["question"], "target": s["target"].replace("The answer is", "So the answer is")} for s in samples
    ]


def fewshot_target(doc: Mapping[str, Any]) -> str:
    """Return an exemplar's chain of thought."""
    return doc["target"]


def extract(text: str) -> str:
    """Extract the last number, without commas between digits; the whole text where there is no number."""
    text = re.sub(r"(\d),(\d)", r"\1\2", text)
    numbers = re.findall(_NUMBER, text)
    return numbers[-1] if numbers else text


def compared(text: str) -> str:
    r"""The text as it is compared: without `,`, `\$`, `(?s).*#### ` and `\.$`, dropped one after the other."""
    text = text.replace(",", "").replace("$", "")
    return re.sub(r"\.$", "", text.rpartition("#### ")[2])


@scorer()
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match of the last number. As in the reference, integers lose their sign on both sides."""
    answer = extract(response)
    value = exact_match(compared(answer), compared(doc_to_target(doc)), ignore_punctuation=False)
    return Scored({"exact_match": value}, answer, failed=not re.search(_NUMBER, response))


def gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1."""
    return f"{doc['answer'].split('####')[0].strip()} So the answer is {doc_to_target(doc)}."


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0."""
    return f"{gold(doc)} No: 1{doc_to_target(doc)}7"
