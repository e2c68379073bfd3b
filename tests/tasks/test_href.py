"""HREF: the order of the pair, the judge's prompt and verdicts, similarity, and scores by category."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from helpers import as_json, olmes_here

from olmes_suite.errors import DataError
from olmes_suite.evaluation.plan import Leaf
from olmes_suite.evaluation.record import count_flags, estimates
from olmes_suite.judges.base import Answer, Question
from olmes_suite.records import Instance, sha256
from olmes_suite.scoring.scorers import DeferredScorer, Item
from olmes_suite.scoring.tools import ToolOptions, Tools
from olmes_suite.tasks import index
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task
from olmes_suite.tasks.task import SuiteTask

FILE = index.tasks_folder() / "href" / "tulu3_href.yaml"
EMBEDDED = ("Open QA", "Fact Checking or Attributed QA")
ALONE = ("Brainstorm", "Summarize")


@pytest.fixture(scope="module")
def href() -> SuiteTask:
    return load_task(FILE, DataSource((), sample=True))


@pytest.fixture(scope="module")
def code(href):
    """The module beside the task file."""

    class Module:
        def __getattr__(self, name):
            return href.scorer.function.__globals__[name]

    return Module()


@dataclass
class Judge:
    """Prefers the response that holds `likes`; says what `says` makes of A, B or tie."""

    likes: str = "MODEL"
    says: str = "{}"
    asked: list[Question] = field(default_factory=list)

    def ask(self, questions):
        self.asked.extend(questions)
        for position in reversed(range(len(questions))):
            text = questions[position].messages[1][1].rpartition("Now decide this one.")[2]
            first = text.split("## Response A\n")[1].split("\n\n## Response B")[0]
            yield position, Answer(self.says.format("A" if self.likes in first else "B"))


@dataclass
class Encoder:
    """Similarity: the share of the reference's letters that the candidate has."""

    calls: int = 0

    def f1(self, candidates, references):
        self.calls += 1
        return [len(set(c) & set(r)) / len(set(r)) for c, r in zip(candidates, references, strict=True)]


def score(href, judge=None, encoder=None, response="MODEL"):
    tools = Tools(ToolOptions(), {"judge": judge or Judge(), "encoder": encoder or Encoder()})
    answer = response if callable(response) else lambda doc: response
    items = [Item("tulu3_href", n, dict(doc), (answer(doc),)) for n, doc in enumerate(href.task_docs)]
    scorer = href.scorer
    assert isinstance(scorer, DeferredScorer)
    found = {position: scored for position, scored, _ in scorer.all(items, tools)}
    assert sorted(found) == list(range(len(items)))
    return {href.task_docs[position]["category"]: found[position] for position in sorted(found)}


def test_eleven_categories_and_their_methods(href, code):
    assert len(code.METHODS) == 11 == len(set(href.task_docs["category"]))
    assert {c for c, method in code.METHODS.items() if method == "E"} == set(EMBEDDED)
    assert {c for c, method in code.METHODS.items() if method == "L"} == set(ALONE)
    assert list(href.aggregation()) == ["winrate", *map(code.metric_of, code.METHODS)]
    assert code.metric_of("Fact Checking or Attributed QA") == "winrate_fact_checking_or_attributed_qa"
    [request] = href.requests(dict(href.task_docs[0]), 0, chat=True)
    assert (request.max_tokens, request.temperature, request.stop) == (8192, 0.0, ())
    assert request.messages == (("user", href.task_docs[0]["instruction"]),)


def test_each_method_asks_its_tool(href):
    judge, encoder = Judge(), Encoder()
    score(href, judge, encoder)
    assert len(judge.asked) == 9 and encoder.calls == 1
    for asked, doc in zip(judge.asked, (d for d in href.task_docs if d["category"] not in EMBEDDED), strict=True):
        (_, system), (_, text) = asked.messages
        assert system.startswith("You are a helpful assistant that helps us rate an AI model's responses")
        assert (asked.max_tokens, asked.temperature, asked.text) == (100, 0.0, None)
        assert text.startswith("Decide which response from the AI system following the instruction is better,")
        assert "Your answer should ONLY contain: A or B or tie" in text
        assert text.endswith("## Which is best, A, B, or tie?\n")
        last = text.rpartition("Now decide this one.")[2]
        assert doc["instruction"] in last and doc["output"] in last and "MODEL" in last
        assert ("## Human Response\n" + doc["reference"] in last) == (doc["category"] not in ALONE)
        assert ("## Human Response" in text) == (doc["category"] not in ALONE)


def test_the_order_is_drawn_and_the_verdict_turned_back(href, code):
    drawn = [code.switched(doc["instruction"]) for doc in href.task_docs]
    assert 0 < sum(drawn) < len(drawn)
    assert drawn == [code.switched(doc["instruction"]) for doc in href.task_docs]
    assert 450 < sum(code.switched(f"instruction {n}") for n in range(1000)) < 550
    liked, disliked = score(href, Judge("MODEL")), score(href, Judge("no such text"))
    for doc in href.task_docs:
        if doc["category"] in EMBEDDED:
            continue
        assert liked[doc["category"]].scores["winrate"] == 1.0
        # a judge that always says B prefers the model where it is not switched
        assert disliked[doc["category"]].scores["winrate"] == float(not code.switched(doc["instruction"]))


def test_the_draw_is_alpaca_evals(code):
    """random.Random("is_switched_outputs" + instruction + seed), as a fixed table."""
    assert [code.switched(text) for text in ("a", "b", "c", "d", "e", "f", "g", "h")] == TABLE


TABLE = [True, False, True, False, True, True, False, True]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("A", "A"), ("b", "B"), ("tie", "tie"), ("TIE", "tie"), ("Tie.", "tie"), ("B.", "B"),
        ("Both are good.\n\nSo the answer is A.", "A"), ("A\n\n", "A"), ("Response B", "B"),
        ("A B C", None), ("A or B", "B"), ("tIe", None), ("A..", None), ("**A**", None), ("", None), ("  \n", None),
        ("A\nbecause it is short", None),
    ],
)  # fmt: skip
def test_reading_verdicts(code, text, verdict):
    assert code.parse(text) == verdict


@pytest.mark.parametrize(
    ("verdict", "model_is_a", "value"),
    [("A", True, 1.0), ("A", False, 0.0), ("B", True, 0.0), ("B", False, 1.0), ("tie", True, 0.5),
     ("tie", False, 0.5), (None, True, 0.0), (None, False, 0.0)],
)  # fmt: skip
def test_outcomes(code, verdict, model_is_a, value):
    assert code.outcome(verdict, model_is_a) == value


def test_similarity_decides_and_equal_is_a_tie(href):
    same = score(href, response=lambda doc: doc["output"])
    better = score(href, response=lambda doc: doc["reference"])
    worse = score(href, response="")
    for category in EMBEDDED:
        assert same[category].scores["winrate"] == 0.5
        assert worse[category].scores["winrate"] == 0.0
    assert better["Open QA"].scores["winrate"] == 0.5  # the baseline holds all letters of `Jupiter` too
    assert better["Fact Checking or Attributed QA"].scores["winrate"] == 1.0


def as_instances(href, found) -> list[Instance]:
    flags = {category: scored.flags for category, scored in found.items()}
    return [Instance("tulu3_href", n, str(n), s, flags=flags[c]) for n, (c, s) in enumerate(found.items())]


def test_unreadable_verdicts_stay_in_the_mean_and_are_counted(href):
    rows = as_instances(href, score(href, Judge(says="neither")))
    found = estimates(Leaf("tulu3_href", href, range(11)), rows)
    embedded = sum(found[f"winrate_{name}"].value for name in ("open_qa", "fact_checking_or_attributed_qa"))
    assert found["winrate"].value == pytest.approx(embedded / 11)
    assert count_flags(rows)["judge_unparsed"] == 9


def test_the_average_is_over_documents_and_every_category_has_its_own(href):
    found = score(href)
    rows = as_instances(href, found)
    rows += [Instance("tulu3_href", 11 + n, f"x{n}", found["Rewrite"]) for n in range(9)]
    summed = estimates(Leaf("tulu3_href", href, range(20)), rows)
    wins = sum(row.scored.scores["winrate"] for row in rows)
    assert summed["winrate"].value == pytest.approx(wins / 20) and summed["winrate"].ci95 is not None
    assert summed["winrate_rewrite"].value == 1.0 and summed["winrate_rewrite"].n == 10
    assert summed["winrate_rewrite"].ci95 is not None
    assert all(sum(v is not None for v in row.scored.scores.values()) == 2 for row in rows)


def test_a_private_set_by_path(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"category": "Extract", "instruction": "i", "output": "o", "generator": "g", "reference": "r"}]
    path = tmp_path / "allenai/href/default/dev.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert load_task(FILE, DataSource((tmp_path,))).task_docs["instruction"] == ["i"]
    pq.write_table(pa.Table.from_pylist([{**rows[0], "category": "Coding"}]), path)
    with pytest.raises(DataError, match="'Coding'"):
        _ = load_task(FILE, DataSource((tmp_path,))).task_docs


def test_prompts_and_the_missing_judge_on_the_command_line(tmp_path):
    done = olmes_here("prompts", "--task", "href", "--data", "sample", tmp=tmp_path)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 11 and lines[1]["reference"] == "Jupiter" and lines[0]["task"] == "tulu3_href"
    done = olmes_here("eval", "--backend", "mock", "--task", "href", "--data", "sample", "--runs", tmp_path / "runs",
                 "--json", tmp=tmp_path)  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert as_json(done)["tasks"]["tulu3_href"]["error"]


def test_the_judges_wording_is_that_of_its_version(code):
    """Who changes a template raises PROMPT_VERSION, part of the fingerprint, and writes the new hashes here."""
    recorded = {1: {"L": "cdfad416aa87af15", "LH": "0465dc9309eca3fe"}}
    assert {kind: sha256(text)[:16] for kind, text in code.TEMPLATES.items()} == recorded[code.PROMPT_VERSION]
    assert code.score.version == code.PROMPT_VERSION
