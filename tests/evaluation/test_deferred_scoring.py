"""The second scoring phase, with a judge that lives in the test: order, failure, continuation, scoring again."""

from __future__ import annotations

import json
import sys
import textwrap
import types
from dataclasses import dataclass, field

import pytest

from olmes_suite.errors import MissingData, RequestFailed
from olmes_suite.evaluation.evaluate import evaluate
from olmes_suite.evaluation.plan import Options
from olmes_suite.evaluation.pool import ScorerFailed
from olmes_suite.evaluation.rescore import rescore, score_responses
from olmes_suite.judges.base import Answer
from olmes_suite.models.without_model.mock import MockBackend
from olmes_suite.records import sha256
from olmes_suite.scoring import tools
from olmes_suite.scoring.tools import ToolOptions
from olmes_suite.tasks import catalog
from olmes_suite.tasks.documents import DataSource

TASK = """
task: {name}
class: !function olmes_suite.tasks.task.SuiteTask
dataset_path: mine/judged
columns: {{question: string}}
hub: false
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: ""
generation_kwargs: {{until: [], max_gen_toks: 16, temperature: 0.0, do_sample: false}}
process_results: !function task.score
summary: !function task.summary
needs: [judge]
metric_list: [{{metric: liked, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0, primary: liked, shots: 0, texts: [question]}}
"""
CODE = """
from olmes_suite.judges.base import Question
from olmes_suite.records import Scored
from olmes_suite.scoring import deferred
from olmes_suite.stats import Estimate


@deferred(version=3)
def score(items, tools):
    questions = [Question(messages=(("user", item.responses[0]),)) for item in items]
    for position, answer in tools.get("judge").ask(questions):
        scored = Scored({"liked": float(answer.text == "yes")}, answer.text)
        yield position, scored, [scored]


def summary(instances):
    return {"total": Estimate(sum(i.scored.scores["liked"] for i in instances))}
"""


@dataclass
class Stub:
    """Says yes to every second question, in reverse order; fails for as long as `failing` holds."""

    name: str = "stub"
    failing: bool = False
    skip: bool = False
    seen: list[str] = field(default_factory=list)
    alive: list[bool] = field(default_factory=list)
    closed: int = 0

    @property
    def fingerprint(self):
        return sha256(self.name)

    def ask(self, questions):
        for position in reversed(range(len(questions))):
            if self.failing:
                raise RequestFailed("the judge gave up")
            if self.skip and position == 0:
                return
            self.seen.append(questions[position].messages[0][1])
            self.alive.append(bool(Candidate.open))
            yield position, Answer("yes" if position % 2 == 0 else "no", prompt_tokens=3, completion_tokens=1)

    def record(self):
        return {"model": self.name, "base_url": None, "requests": len(self.seen)}

    def close(self):
        self.closed += 1


class Candidate(MockBackend):
    open = True

    def close(self):
        Candidate.open = False

    def run(self, requests, seeds):
        assert Candidate.open
        yield from super().run(requests, seeds)


class Quiet:
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    def start(self, plans): ...
    def advance(self, task, documents, tokens): ...
    def stop(self): ...


@pytest.fixture
def stub(monkeypatch):
    made = Stub()
    monkeypatch.setitem(sys.modules, "judge_of_this_test", types.SimpleNamespace(build=lambda options: made))
    monkeypatch.setitem(tools.BUILDERS, "judge", "judge_of_this_test:build")
    Candidate.open = True
    return made


@pytest.fixture
def options(tmp_path, monkeypatch):
    folder = tmp_path / "tasks/judged"
    folder.mkdir(parents=True)
    for name in ("judged_a", "judged_b"):
        (folder / f"{name}.yaml").write_text(TASK.format(name=name))
    (folder / "task.py").write_text(textwrap.dedent(CODE))
    rows = [{"_id": n, "question": f"What is {n}?"} for n in range(6)]
    (folder / "sample.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(catalog, "include_paths", [folder.parent])
    return Options(
        model="", backend="mock", task_names=("judged_a", "judged_b"), source=DataSource(sample=True),
        runs=tmp_path / "runs", tools=ToolOptions(judge="stub"),
    )  # fmt: skip


def run(options, watcher=None):
    return evaluate(options, lambda *_: Candidate(), watcher or Quiet())


def test_the_candidate_is_gone_before_the_judge_is_asked(options, stub):
    done = run(options)
    assert not done.failed
    entry = done.results.tasks["judged_a"]
    assert entry.metrics["liked"].value == 0.5
    assert entry.metrics["total"].value == 3.0
    assert len(stub.seen) == 12 and not any(stub.alive) and stub.closed == 1
    assert done.manifest.judge["judge"].as_json() == {"model": "stub", "base_url": None, "requests": 12}


def test_another_judge_is_another_scorer(options, stub):
    first = run(options)
    stub.name = "other"
    Candidate.open = True
    second = run(options)
    prints = [r.results.tasks["judged_a"].fingerprint for r in (first, second)]
    assert first.path != second.path
    assert prints[0]["scorer"] != prints[1]["scorer"]
    assert prints[0]["prompt"] == prints[1]["prompt"]


def test_a_judge_that_gives_up_fails_the_task_and_a_repeat_continues(options, stub):
    stub.failing = True
    failed = run(options)
    assert failed.failed == ["judged_a", "judged_b"]
    assert failed.results.tasks["judged_a"].metrics == {}
    assert "gave up" in failed.results.tasks["judged_a"].error
    stub.failing, Candidate.open = False, True
    asked = []

    class Counting(Candidate):
        def run(self, requests, seeds):
            asked.append(len(requests))
            yield from super().run(requests, seeds)

    done = evaluate(options, lambda *_: Counting(), Quiet())
    assert not done.failed and asked == []
    again = evaluate(options, lambda *_: Counting(), Quiet())
    assert again.old and again.path == done.path


def test_a_document_without_a_verdict_is_an_error(options, stub):
    stub.skip = True
    done = run(options)
    assert "1 of 6 documents unscored" in done.results.tasks["judged_a"].error
    assert done.results.tasks["judged_a"].metrics == {}


def test_without_a_judge_the_task_fails_before_it_generates(options, stub, monkeypatch):
    def none(_):
        raise MissingData("needs a judge: give --judge MODEL")

    monkeypatch.setitem(sys.modules, "judge_of_this_test", types.SimpleNamespace(build=none))
    done = run(options)
    assert "give --judge" in done.results.tasks["judged_a"].error
    assert not (done.path / "responses").exists()


def test_a_run_is_scored_again(options, stub):
    done = run(options)
    new = rescore(done.path, None)
    assert new.version == 2
    assert new.tasks["judged_a"].metrics == done.results.tasks["judged_a"].metrics
    assert new.tasks["judged_a"].fingerprint == done.results.tasks["judged_a"].fingerprint


def test_responses_from_anywhere_are_judged(options, stub, tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps({"doc_id": n, "responses": [f"text {n}"]}) + "\n" for n in (4, 1, 3)))
    summary, found = score_responses("judged_a", file, options.source, options.tools)
    assert [i.doc_id for i in found] == [1, 3, 4]
    assert summary["metrics"]["liked"]["value"] == pytest.approx(2 / 3)
    assert stub.seen == ["text 4", "text 3", "text 1"]
    stub.skip = True
    with pytest.raises(ScorerFailed, match="unscored"):
        score_responses("judged_a", file, options.source, options.tools)
