"""Tokens, endings and completed answers of a task, and several samples of a document as scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from olmes_suite.evaluation.generate import OpenDocument, Scoring
from olmes_suite.evaluation.plan import Options, TaskPlan, load_leaves
from olmes_suite.evaluation.pool import ScoringPool
from olmes_suite.evaluation.record import instance_rows, results, task_results
from olmes_suite.records import Instance, Response
from olmes_suite.runs import frames
from olmes_suite.runs.contamination import Known
from olmes_suite.runs.schema import (
    Completed,
    Results,
    TaskResult,
    Tokens,
    instances_file,
    read_results,
    read_rows,
    write_instances,
    write_results,
)
from olmes_suite.tasks import catalog
from olmes_suite.tasks.documents import DataSource

NOTHING = Known({})


def plan_of(name: str, samples: int | None = None) -> TaskPlan:
    entry = catalog.find(name)
    plan = TaskPlan(entry.name, entry.primary, entry.aggregate)
    load_leaves(plan, Options("", source=DataSource(sample=True)))
    for leaf in plan.leaves:
        if samples is not None:
            leaf.task.averages_samples = True
    return plan


def answer(doc: Mapping[str, Any], right: bool, **fields: Any) -> Response:
    target = str(doc["answer"]).rsplit("#### ", 1)[-1]
    text = f"So the answer is {target if right else '-7654321'}."
    return Response(**{"text": text, "finish_reason": "stop", "completion_tokens": 10} | fields)


def scored(plan: TaskPlan, responses: Sequence[Sequence[Response]]) -> list[Instance]:
    """Score the first documents of a task; one list of responses for each."""
    (leaf,) = plan.leaves
    with ScoringPool() as pool:
        scoring = Scoring(pool)
        for (doc_id, doc), answers in zip(leaf.documents(), responses, strict=False):
            scoring.submit(OpenDocument(leaf, doc_id, doc, [], {(0, n): one for n, one in enumerate(answers)}))
        pool.join()
    return plan.in_order(scoring.instances.values())


def entry(plan: TaskPlan, responses: Sequence[Sequence[Response]]) -> TaskResult:
    return task_results(plan, scored(plan, responses), NOTHING)[plan.name]


def documents(plan: TaskPlan) -> list[dict[str, Any]]:
    return [doc for _, doc in plan.leaves[0].documents()]


def test_tokens_endings_and_completed_answers() -> None:
    plan = plan_of("gsm8k")
    a, b, c, d = documents(plan)
    cut = {"finish_reason": "length", "completion_tokens": 400, "thinking_tokens": 390}
    found = entry(
        plan,
        [
            [answer(a, True, completion_tokens=100, thinking_tokens=60)],
            [answer(b, False, completion_tokens=90, thinking_tokens=30)],
            [answer(c, False, unclosed=True, **cut)],
            [answer(d, True, text=" \n", **cut)],
        ],
    )
    assert found.tokens == Tokens(thinking=(60 + 30 + 390 + 390) / 4, answer=(40 + 60 + 10 + 10) / 4)
    assert found.answers is not None and found.completed is not None
    assert found.answers.as_json() == {"n": 4, "length": 2, "unclosed": 1, "empty": 1}
    assert found.flags["length"] == 2 and found.score is not None and found.score.value == 0.25
    assert (found.completed.value, found.completed.n) == (0.5, 2)
    assert found.correct_per_million_tokens == pytest.approx(1e6 / 990)
    assert found.samples is None and found.samples_sd is None


def test_sources_without_counts_leave_them_out() -> None:
    """A server that counts nothing, and texts whose ends are not known."""
    plan = plan_of("gsm8k")
    docs = documents(plan)
    found = entry(plan, [[answer(doc, True, completion_tokens=0)] for doc in docs])
    assert found.tokens is None and found.correct_per_million_tokens is None
    assert found.completed is not None and found.completed.n == 4
    found = entry(plan, [[answer(doc, True, completion_tokens=0, finish_reason=None)] for doc in docs])
    assert found.completed is None and found.answers is None
    assert not {"tokens", "completed", "answers", "samples"} & found.as_json().keys()


def test_all_answers_cut_leave_no_completed_score() -> None:
    plan = plan_of("gsm8k")
    found = entry(plan, [[answer(doc, True, finish_reason="length")] for doc in documents(plan)])
    assert found.completed == Completed(value=None, n=0)


def test_results_with_costs_are_written_and_read(tmp_path: Path) -> None:
    plan = plan_of("gsm8k", samples=2)
    instances = scored(plan, [[answer(doc, True, thinking_tokens=4), answer(doc, False)] for doc in documents(plan)])
    outcome = results("r", "m", [plan], {plan.name: instances}, suites=(), known=NOTHING)
    write_results(tmp_path, outcome)
    assert read_results(tmp_path).tasks[plan.name] == outcome.tasks[plan.name]
    (row,) = frames.scores(outcome).to_dict("records")
    assert (row["tokens"], row["thinking_tokens"], row["completed"]) == (10.0, 2.0, 0.5)
    write_instances(instances_file(tmp_path, plan.name), instance_rows(instances, plan.primary, NOTHING))
    rows = list(read_rows(instances_file(tmp_path, plan.name)))
    assert {(row.score, row.thinking_tokens, row.answer_tokens, row.sample_scores) for row in rows} == {
        (0.5, 2.0, 8.0, (1.0, 0.0))
    }
    assert rows[0].metrics["pass_at_2"] == 1.0


def test_results_of_an_older_version_are_read() -> None:
    old = {"schema": "1.0", "run": "r", "model": "m", "tasks": {"t": {"n": 1, "primary": "p", "metrics": {}}}}
    found = Results.from_json(old).tasks["t"]
    assert found.tokens is None and found.completed is None and found.answers is None


def test_asked_samples_are_averaged_and_own_repeats_are_not() -> None:
    """With --samples a document's score is the mean; a task that repeats by itself keeps the reference's first."""
    rights = [(True, True, True, False), (False, True, False, False), (False,) * 4, (True,) * 4]

    def of(samples: int | None) -> TaskResult:
        plan = plan_of("gsm8k", samples)
        docs = zip(documents(plan), rights, strict=True)
        return entry(plan, [[answer(doc, right) for right in row] for doc, row in docs])

    own, asked = of(None), of(4)
    assert own.score is not None and asked.score is not None
    assert own.score.value == 0.5 and list(own.metrics) == ["exact_match"]
    assert asked.score.value == pytest.approx((0.75 + 0.25 + 0 + 1) / 4)
    assert asked.samples == own.samples == 4
    values = {name: metric.value for name, metric in asked.metrics.items()}
    assert values["pass_at_1"] == asked.score.value
    assert values["pass_at_2"] == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert values["pass_at_4"] == 0.75
    assert values["maj_at_4"] == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert list(values)[1:] == ["pass_at_1", "pass_at_2", "pass_at_4", "maj_at_2", "maj_at_4"]
    # The scores of the four samples are 0.5, 0.75, 0.5 and 0.25.
    assert asked.samples_sd == pytest.approx((0.125 / 3) ** 0.5) and own.samples_sd == asked.samples_sd


def test_samples_of_a_document_are_one_cluster() -> None:
    """Ten equal samples of four documents say no more than one sample of each."""
    plan = plan_of("gsm8k", samples=10)
    docs = list(enumerate(documents(plan)))
    found = entry(plan, [[answer(doc, n < 2) for _ in range(10)] for n, doc in docs])
    once = entry(plan_of("gsm8k"), [[answer(doc, n < 2)] for n, doc in docs])
    assert found.score is not None and once.score is not None
    assert found.score.value == once.score.value and found.score.stderr == pytest.approx(once.score.stderr)


def test_completed_counts_samples() -> None:
    plan = plan_of("gsm8k", samples=2)
    responses = [
        [answer(doc, True), answer(doc, False, finish_reason="length" if n else "stop")]
        for n, doc in enumerate(documents(plan))
    ]
    found = entry(plan, responses)
    assert found.completed is not None and found.answers is not None
    assert (found.completed.value, found.completed.n) == (4 / 5, 5)
    assert (found.answers.n, found.answers.length, found.flags["length"]) == (8, 3, 3)


def test_completed_pass_at_k_takes_the_completed_samples() -> None:
    from olmes_suite.evaluation.cost import completed
    from olmes_suite.records import Generated, Scored
    from olmes_suite.stats import mean

    samples = tuple(Scored({"pass_at_1": score}) for score in (1.0, 0.0, 0.0))
    ends = tuple(Generated(0, 1, reason) for reason in ("stop", "stop", "length"))
    instance = Instance("t", 0, "0", Scored({"pass_at_2": 2 / 3}), samples, generated=ends)

    def score(instances: Sequence[Instance]) -> Any:
        return mean([float(i.scored.scores["pass_at_2"] or 0) for i in instances])

    found = completed([instance, replace(instance, generated=(ends[2],) * 3)], "pass_at_2", False, score)
    assert found[0] is not None and (found[0].value, found[1]) == (1.0, 2)


@pytest.mark.long
def test_a_task_that_repeats_by_itself_has_a_majority_and_a_spread() -> None:
    """AIME's own score is the mean over its 32 samples."""
    plan = plan_of("olmo3_aime_2024")
    gold, wrong = plan.leaves[0].task.keys.gold, Response("\\boxed{1}", finish_reason="stop")
    assert gold is not None
    rows = [[Response(gold(doc), finish_reason="stop")] * 3 + [wrong] for doc in documents(plan)]
    found = entry(plan, rows)
    assert found.score is not None and found.score.value == 0.75
    assert found.metrics["maj_at_4"].value == 1.0 and found.samples_sd == 0.5
