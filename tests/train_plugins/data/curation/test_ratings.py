"""Ratings: exactly one per answer, asked again otherwise, by the answer and not by its place; biases of the judge."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from curation_server import rated, rating
from judge_server import Body, Reply, Served, chat, judge_server

from train_plugins.data.curation import rating_checks, ratings
from train_plugins.data.curation.candidates import Candidate
from train_plugins.data.curation.generation.completions import Completer, Journal
from train_plugins.data.curation.generation.models import Model
from train_plugins.data.curation.prompt_rows import Prompt
from train_plugins.data.curation.ratings import Rated, Ratings, Unreadable, parsed

GOOD = {
    "blocks": "Answer 1\nRating: 4\nRationale: good.\n\nAnswer 2\nRating: 2\nRationale: bad.",
    "markdown": "**Answer 1**\n**Rating:** 4\n*Rationale:* …\n\n### Answer 2:\n- Rating: 2",
    "out of five": "Answer 1\nRating: 4/5\nAnswer 2\nRating: 2 / 5",
    "one line each": "Answer 1: Rating: 4\nAnswer 2: Rating: 2",
    "another order": "Answer 2\nRating: 2\n\nAnswer 1\nRating: 4",
    "without headings": "Rating: 4\nRationale: x\n\nRating: 2\nRationale: y",
    "called texts": "Text 1\nRating: 4\nText 2\nRating: 2",
    "brackets": "Answer 1\nRating: [4]\nAnswer 2\nRating: (2)",
    "out of five in words": "Answer 1\nRating: 4 out of 5 stars\nAnswer 2\nRating: 2 of 5",
    "on one line": "Answer 1: Rating: 4; Answer 2: Rating: 2",
    "JSON": '```json\n[{"answer": 1, "rating": 4}, {"answer": 2, "rating": 2}]\n```',
    "JSON in another order": '[{"answer": 2, "rating": 2}, {"answer": "1", "rating": "4"}]',
    "JSON by name": '{"Answer 2": {"rating": 2, "rationale": "no"}, "Answer 1": {"rating": 4}}',
    "a numbered list": "2. Rating: 2\n1. Rating: 4",
    "other answers in the reasons": "Answer 1\nRating: 4\nRationale: better than answer 2.\nAnswer 2\nRating: 2",
    "reasons first": "Answer 1\nRationale: beats answer 2.\nRating: 4\n\nAnswer 2\nRationale: below 1.\nRating: 2",
    "reasons first on one line": "Answer 1 is better than Answer 2. Rating: 4\nAnswer 2 is below Answer 1. Rating: 2",
    "reasons on lines of their own": (
        "Answer 1\nRationale:\nAnswer 2 is weaker.\nRating: 4\n\nAnswer 2\nRationale:\nAnswer 1's is better.\nRating: 2"
    ),
    "reasons first in JSON": (
        '[{"answer": 1, "why": "better than answer 2", "rating": 4}, {"answer": 2, "why": "not answer 1", "rating": 2}]'
    ),
    "reasons without headings": "Rating: 4\nRationale: better than answer 2.\n\nRating: 2\nRationale: worse.",
    "reasons before all ratings": "Answer 1 is good.\nAnswer 2 is bad.\n\nAnswer 1\nRating: 4\nAnswer 2\nRating: 2",
    "JSON by number": '{"2": {"rating": 2}, "1": {"rating": 4}}',
    "JSON with ids": '[{"id": 2, "rating": 2}, {"id": 1, "rating": 4}]',
    "numbers in brackets": "[2]\nRating: 2\n[1]\nRating: 4",
    "called candidates": "Candidate 2\nRating: 2\nCandidate 1\nRating: 4",
    "JSON with names as ids": '[{"id": "Answer 2", "rating": 2}, {"id": "Answer 1", "rating": 4}]',
    "JSON without headings": '```json\n[\n{"rating": 4,\n"rationale": "good"},\n{"rating": 2}\n]\n```',
    "stars": "Answer 1\nRating: 4 stars\nAnswer 2\nRating: 2 stars out of 5",
}
BAD = {
    "prose": ("Both answers are fine, I would give them four and two.", "0 ratings instead of 2"),
    "one missing": ("Answer 1\nRating: 4\n\nAnswer 2\nRationale: none", "1 ratings instead of 2"),
    "one too many": ("Answer 1\nRating: 4\nAnswer 2\nRating: 2\nAnswer 3\nRating: 1", "3 ratings instead of 2"),
    "numbered from 2": ("Answer 2\nRating: 4\nAnswer 3\nRating: 2", "for the answers 2, 3 instead of 1 to 2"),
    "one answer twice": ("Answer 1\nRating: 4\nAnswer 1\nRating: 2", "for the answers 1, 1"),
    "not applicable": ("Answer 1\nRating: N/A\nAnswer 2\nRating: 2", "N/A is not a whole number"),
    "half": ("Answer 1\nRating: 4.5\nAnswer 2\nRating: 2", "4.5 is not a whole number"),
    "zero": ("Answer 1\nRating: 0\nAnswer 2\nRating: 2", "0 is not a whole number"),
    "out of ten": ("Answer 1\nRating: 8\nAnswer 2\nRating: 2", "8 is not a whole number"),
    "empty": ("", "0 ratings"),
    "by another scale": ("Answer 1\nRating: 4/10\nAnswer 2\nRating: 2/10", "4/10 is not a whole number"),
    "another scale in words": ("Answer 1\nRating: 4 out of 10\nAnswer 2\nRating: 2", "4 out of 10 is not a whole"),
    "another scale after a word": ("Answer 1\nRating: 4 points out of 10\nAnswer 2\nRating: 2", "4 points out of 10"),
    "a correction": ("Answer 1\nRating: 4 -> 2\nAnswer 2\nRating: 2", "4 -> 2 is not a whole number"),
    "percent": ("Answer 1\nRating: 4 %\nAnswer 2\nRating: 2", "4 % is not a whole number"),
    "a range": ("Answer 1\nRating: 4-5\nAnswer 2\nRating: 2", "4-5 is not a whole number"),
    "a range with a dash": ("Answer 1\nRating: 3 – 4\nAnswer 2\nRating: 2", "3 – 4 is not a whole number"),
    "a choice": ("Answer 1\nRating: 4 or 5\nAnswer 2\nRating: 2", "4 or 5 is not a whole number"),
    "two numbers": ("Answer 1\nRating: 4 5\nAnswer 2\nRating: 2", "4 5 is not a whole number"),
    "negative": ("Answer 1\nRating: -4\nAnswer 2\nRating: 2", "-4 is not a whole number"),
    "a list without one": ("1. Rating:\n2. Rating: 4", "1 ratings instead of 2"),
    "named after the rating": ("Rating: 4 for Answer 2\nRating: 2 for Answer 1", "which answer each rating is for"),
    "named in brackets": ("Rating: 4 (Answer 2)\nRating: 2 (Answer 1)", "which answer"),
    "named on the next line": ("Rating: 4\nAnswer: 2\n\nRating: 2\nAnswer: 1", "which answer"),
    "letters": ("Answer B\nRating: 4\nAnswer A\nRating: 2", "which answer"),
    "numbers in words": ("Second answer: Rating: 4\nFirst answer: Rating: 2", "which answer"),
    "other names": ("Model 2\nRating: 4\nModel 1\nRating: 2", "which answer"),
    "a table": ("| # | Rating |\n| 2 | Rating: 4 |\n| 1 | Rating: 2 |", "which answer"),
    "ranks": ("1. Answer 2\nRating: 4\n2. Answer 1\nRating: 2", "which answer"),
    "reasons first without headings": (
        "Rationale: answer 2 is good.\nRating: 4\nRationale: answer 1 is bad.\nRating: 2", "which answer"
    ),
    "JSON with the number last": (
        '[{"rating": 4, "answer": 2}, {"rating": 2, "answer": 1}]', "for the answers none, 2 instead of 1 to 2"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_ratings_that_are_read(name: str) -> None:
    assert parsed(GOOD[name], 2) == [4, 2]


@pytest.mark.parametrize("name", BAD)
def test_ratings_that_are_asked_for_again(name: str) -> None:
    text, said = BAD[name]
    with pytest.raises(Unreadable, match=said):
        parsed(text, 2)


def test_the_request_has_all_texts_the_scale_and_the_form() -> None:
    aspects = ratings.aspects()
    assert list(aspects) == ["helpfulness", "instruction_following", "honesty", "truthfulness"]
    text = ratings.question("Why?", ["Because.", "So."], aspects["honesty"])
    assert "<answer 1>\nBecause.\n</answer 1>" in text and "<answer 2>\nSo.\n</answer 2>" in text
    assert "1: States falsehoods" in text and "5: Says with" in text and "exactly 2 blocks" in text


def completer(served: Served, folder: Path) -> Completer:
    return Completer(Model(model="j", base_url=served.url, temperature=0.0, tries=2), Journal(folder), 0)


def answers(count: int = 4) -> list[Candidate]:
    return [Candidate(f"m{n}", 0, f"text number {n}") for n in range(count)]


def rate(reply: Callable[[Body, int], Reply], folder: Path, *, prompts: int = 3, tries: int = 3,
    repeated: frozenset[int] = frozenset(), with_example: bool = False) -> tuple[list[Ratings], Served]:  # fmt: skip
    asked = [Prompt("s", n, (("user", f"question {n}"),)) for n in range(prompts)]
    with judge_server(reply) as served:
        judge = completer(served, folder)
        found = ratings.rate(
            judge,
            asked,
            [answers()] * prompts,
            names=["helpfulness", "honesty"],
            repeated=repeated,
            tries=tries,
            seed=1,
            with_example=with_example,
        )
        judge.close()
    return found, served


def test_ratings_belong_to_the_texts_whatever_their_order(tmp_path: Path) -> None:
    found, served = rate(lambda body, before: rated(body), tmp_path)
    expected = [rating(one.text) for one in answers()]
    assert all(one.ratings == tuple(expected) for ratings in found for one in ratings.read)
    assert len({one.order for ratings in found for one in ratings.read}) > 2
    assert found[0].scores() == expected and found[0].of(2) == {"helpfulness": expected[2], "honesty": expected[2]}
    assert len([path for path, _ in served.seen if path.endswith("completions")]) == 6


def test_a_judge_that_answers_in_prose_is_told_and_asked_again(tmp_path: Path) -> None:
    def reply(body: Body, before: int) -> Reply:
        return Reply(chat("They are all nice \ud83d.")) if len(body["messages"]) == 2 else rated(body)

    found, served = rate(reply, tmp_path)
    assert all(one.problem is None and len(one.read) == 2 for one in found)
    last = served.seen[-1][1]["messages"]
    assert [turn["role"] for turn in last] == ["system", "user", "assistant", "user"]
    assert "0 ratings instead of 4" in last[-1]["content"]


@pytest.mark.parametrize(("temperature", "requests"), [(0.5, 3), (0.0, 2)])
def test_a_judge_that_repeats_itself_is_asked_once_more_only_where_it_samples(
    tmp_path: Path, temperature: float, requests: int
) -> None:
    with judge_server(lambda body, before: Reply(chat("They are all nice."))) as served:
        judge = Completer(Model(model="j", base_url=served.url, temperature=temperature), Journal(tmp_path), 0)
        asked = [Prompt("s", 0, (("user", "question"),))]
        found = ratings.rate(judge, asked, [answers()], names=["honesty"], repeated=frozenset(), tries=3, seed=1)
        judge.close()
    assert found[0].problem == "ratings_unreadable"
    bodies = [body for path, body in served.seen if path.endswith("completions")]
    assert len(bodies) == requests
    assert not temperature or len({body["seed"] for body in bodies}) == 3


@pytest.mark.parametrize("count", [2, 3, 6])
def test_a_shown_example_has_the_form_that_is_read_and_its_answers_in_random_order(count: int) -> None:
    orders = set()
    rated_answers = yaml.safe_load(ratings.EXAMPLE.read_text())["answers"]
    for name, aspect in ratings.aspects().items():
        shown = {one["text"]: one[name][0] for one in rated_answers}
        for seed in range(40):
            (asked, question), (answered, reply) = ratings.example(aspect, count, random.Random(seed))
            texts = re.findall(r"<answer \d+>\n(.*)\n</answer \d+>", question)
            assert (asked, answered, len(texts)) == ("user", "assistant", min(count, 4))
            assert parsed(reply, len(texts)) == [shown[text] for text in texts]
            orders.add(tuple(texts))
    assert len(orders) > 10


def test_an_example_comes_before_the_answers_and_stays_when_the_judge_is_asked_again(tmp_path: Path) -> None:
    def reply(body: Body, before: int) -> Reply:
        system, *_, question = body["messages"][:4]
        again = len(body["messages"]) == 6
        return rated({**body, "messages": [system, question]}) if again else Reply(chat("All nice."))

    found, served = rate(reply, tmp_path, prompts=1, with_example=True)
    assert found[0].scores() == [rating(one.text) for one in answers()]
    first, last = served.seen[1][1]["messages"], served.seen[-1][1]["messages"]
    assert [turn["role"] for turn in first] == ["system", "user", "assistant", "user"]
    assert "two planets" in first[1]["content"] and "question 0" in first[3]["content"]
    assert (
        len(last) == 6
        and last[:3][1]["content"].startswith("Rate 4 answers")
        and "cannot be used" in last[5]["content"]
    )


def test_a_prompt_is_dropped_when_no_answer_can_be_read(tmp_path: Path) -> None:
    def reply(body: Body, before: int) -> Reply:
        stubborn = "question 1" in body["messages"][1]["content"] and "honesty" in body["messages"][1]["content"]
        return Reply(chat("Rating: 3")) if stubborn else rated(body)

    found, _ = rate(reply, tmp_path)
    assert [one.problem for one in found] == [None, "ratings_unreadable", None]
    assert found[1].detail == "honesty: it has 1 ratings instead of 4"


def test_ratings_inside_a_thought_without_end_do_not_count(tmp_path: Path) -> None:
    def reply(body: Body, before: int) -> Reply:
        answer = rated(body)
        if len(body["messages"]) == 2:
            answer.body["choices"][0]["message"]["content"] = (
                "<think>" + answer.body["choices"][0]["message"]["content"]
            )
        return answer

    found, served = rate(reply, tmp_path)
    assert all(one.problem is None and len(one.read) == 2 for one in found)
    assert "it ends inside a thought" in served.seen[-1][1]["messages"][-1]["content"]


def test_a_failed_request_drops_its_prompt_only(tmp_path: Path) -> None:
    def reply(body: Body, before: int) -> Reply:
        return Reply({"error": "no"}, status=400) if "question 2" in body["messages"][1]["content"] else rated(body)

    found, _ = rate(reply, tmp_path)
    assert [one.problem for one in found] == [None, None, "judge_failed"] and "no" in found[2].detail


def test_repeats_have_another_order_and_measure_agreement(tmp_path: Path) -> None:
    def fickle(body: Body, before: int) -> Reply:
        rng = random.Random(body["messages"][1]["content"])
        return Reply(chat("\n".join(f"Answer {n}\nRating: {rng.randint(1, 5)}" for n in range(1, 5))))

    steady, _ = rate(lambda body, before: rated(body), tmp_path / "a", repeated=frozenset({0, 2}))
    assert [len(one.read) for one in steady] == [4, 2, 4]
    assert steady[0].read[0].order == steady[0].read[1].order[::-1]
    again = rating_checks.agreement(steady)
    assert again and again["exact"] == again["within_one"] == again["same_order"] == 1.0 and again["ratings"] == 16
    unsteady, _ = rate(fickle, tmp_path / "b", repeated=frozenset({0, 1, 2}))
    again = rating_checks.agreement(unsteady)
    assert again and again["exact"] < 0.7 and again["difference"] > 0.5


def simulated(bias: float, per_word: float, prompts: int = 400) -> tuple[list[Ratings], list[list[int]]]:
    """Ratings of a judge that likes the first place, and length."""
    rng = random.Random(0)
    found, lengths = [], []
    for _ in range(prompts):
        words = [rng.randint(10, 200) for _ in range(4)]
        order = tuple(rng.sample(range(4), 4))
        values = [rng.gauss(3, 0.7) + per_word * words[n] + bias * (order.index(n) == 0) for n in range(4)]
        found.append(Ratings([Rated("helpfulness", 0, order, tuple(min(5, max(1, round(v))) for v in values))]))
        lengths.append(words)
    return found, lengths


def test_position_and_length_bias_are_found_where_they_are_and_only_there() -> None:
    none = rating_checks.measured(*simulated(0.0, 0.0))
    assert all(abs(one["mean"]) < 3 * one["stderr"] for one in none["position"])
    assert abs(none["length"]["correlation"]) < 3 * none["length"]["stderr"]
    biased = rating_checks.measured(*simulated(1.0, 0.01))
    first, *others = biased["position"]
    assert first["mean"] > 10 * first["stderr"] and all(one["mean"] < 0 for one in others)
    assert biased["length"]["correlation"] > 0.3
    text = "\n".join(rating_checks.described(biased))
    assert "position bias" in text and "length bias" in text and "agreement" not in text


def test_the_correlation_is_numpys_over_centred_values() -> None:
    import numpy as np

    found, lengths = simulated(0.0, 0.01, prompts=30)
    scores = np.concatenate([np.array(one.scores()) - np.mean(one.scores()) for one in found])
    words = np.concatenate([np.log1p(one) - np.mean(np.log1p(one)) for one in lengths])
    expected = np.corrcoef(scores, words)[0, 1]
    assert rating_checks.length_bias(found, lengths)["correlation"] == pytest.approx(expected)


def test_without_ratings_nothing_is_measured() -> None:
    empty = rating_checks.measured([Ratings(problem="judge_failed")], [[1, 2]])
    assert empty == {"position": [], "length": {"correlation": None, "stderr": None}, "agreement": None}
    assert rating_checks.described(empty) == []
