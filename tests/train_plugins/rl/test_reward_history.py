"""Watching a training by rewards: history, lines, table, and when over-optimisation is warned of."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest

from olmes_suite.comparison.clusters import Pairs
from olmes_suite.comparison.paired_tests import Difference, compare, drop_p
from olmes_suite.runs.schema import Stopped
from train_plugins.checkpoints.evaluator import Result
from train_plugins.rl import reward_table
from train_plugins.rl.overoptimisation import ALPHA, allowed, judge, rose
from train_plugins.rl.reward_history import Watching, read_history
from train_plugins.rl.reward_table import Evaluated, joined, log_line, table


def fall(points: float, p: float) -> Difference:
    return Difference(
        -points / 100, 100, 0, 0, stderr=0.01, ci95=(-points / 100 - 0.02, -points / 100 + 0.02), p_drop=p
    )


RISING = {100: [0.30, 0.31, 0.29], 200: [0.50, 0.52, 0.51], 300: [0.70, 0.69, 0.71]}


# The decision -------------------------------------------------------------------------------------------------------


def test_a_fall_beyond_chance_while_reward_rises_is_named():
    found = judge(300, {100: fall(3, 0.02), 200: fall(9, 0.0001)}, RISING, planned=3)
    assert found is not None and (found.since, found.step) == (200, 300)
    assert found.reward == pytest.approx((0.51, 0.70))


def test_no_warning_without_both():
    assert judge(300, {100: fall(3, 0.02), 200: fall(3, 0.02)}, RISING, planned=3) is None  # 0.02 > 0.05 / 3
    falling = {100: [0.7, 0.7, 0.71], 200: [0.3, 0.31, 0.3]}
    assert judge(200, {100: fall(9, 0.0001)}, falling, planned=2) is None
    assert judge(100, {}, RISING, planned=3) is None
    assert judge(200, {100: Difference(-0.1, 5, 0, 0)}, RISING, planned=3) is None  # no error, no verdict


def test_more_evaluations_than_planned_are_accounted_for():
    falls = {100: fall(9, 0.02), 200: fall(9, 0.02)}
    assert judge(300, falls, RISING, planned=2) is None
    assert judge(300, falls, RISING, planned=1) is None


def test_every_pair_has_its_share():
    assert [round(allowed(k), 6) for k in (1, 2, 3, 10)] == [0.05, 0.05, 0.016667, 0.001111]


def test_a_rise_is_one_beyond_the_spread():
    assert rose([0.1, 0.2, 0.15], [0.8, 0.9, 0.85]) and not rose([0.8, 0.9], [0.1, 0.2])
    assert not rose([0.1, 0.9, 0.5], [0.2, 0.95, 0.55])
    assert rose([0.5], [0.6, 0.7]) and not rose([], [0.5]) and not rose([0.5, 0.5], [0.5, 0.5])
    assert rose([0.5, 0.5], [0.6, 0.6])


def simulated(rng: np.random.Generator, means: list[float], documents: int) -> bool:
    """Whether a training whose dev means are these is warned of, its reward rising all along."""
    chance = np.clip(rng.beta(2, 2, documents) + np.array(means)[:, None] - 0.5, 0, 1)
    right = (rng.random(chance.shape) < chance).astype(float)
    differences = right[:, None] - right[None]  # [later, earlier, document]
    p = drop_p((differences > 0).sum(-1), (differences < 0).sum(-1))
    delta = differences.mean(-1)
    rewards = {j: [0.1 * j, 0.1 * j + 0.01] for j in range(len(means))}
    for k in range(1, len(means)):
        falls = {j: Difference(float(delta[k, j]), documents, 0, 0, p_drop=float(p[k, j])) for j in range(k)}
        if judge(k, falls, rewards, len(means)) is not None:
            return True
    return False


@pytest.mark.parametrize("documents", [60, 400])
def test_false_warnings_in_a_whole_training_stay_under_five_percent(documents):
    """Dev stands still, the reward rises in every step: 400 trainings with 8 evaluations each."""
    rng = np.random.default_rng(3)
    warned = sum(simulated(rng, [0.5] * 8, documents) for _ in range(400))
    assert warned / 400 <= ALPHA + 2.33 * np.sqrt(ALPHA * (1 - ALPHA) / 400)


def test_a_real_fall_is_seen():
    """Dev rises by ten points and falls by fifteen: of 100 trainings with 400 documents nearly all are warned of."""
    rng = np.random.default_rng(4)
    assert sum(simulated(rng, [0.50, 0.55, 0.60, 0.58, 0.50, 0.45], 400) for _ in range(100)) >= 90


def test_the_simulated_p_value_is_the_evaluators():
    rng = np.random.default_rng(5)
    d = rng.choice([-1.0, 0.0, 1.0], 80, p=[0.2, 0.7, 0.1])
    pairs = Pairs(d, np.full(80, 1 / 80), np.zeros(80, int), np.arange(80), True)
    assert compare(pairs).p_drop == pytest.approx(float(drop_p((d > 0).sum(), (d < 0).sum())))


# What is shown ------------------------------------------------------------------------------------------------------

LOGGED = {"verified": 0.4123, "kl": 0.031, "length": 182.4, "eos_rate": 0.98, "no_signal": 0.25}


def test_a_log_is_a_line_of_80_columns():
    assert log_line({"step": 120, **LOGGED}, 500) == (
        "step 120/500  verified 0.412  kl 0.031  length 182  eos 0.98  no signal 0.25"
    )
    long = log_line({"step": 1_200_000, **LOGGED, "length": 123456.0}, 10_000_000)
    assert len(long) <= 80 and "verified" in long
    assert log_line({"step": 1, "verified": None, "kl": 0.5}, 9) == "step 1/9  kl 0.5"


def test_history_and_evaluations_are_joined_by_step():
    history = [{"step": s, "verified": s / 100, "kl": 0.1, "verified/gsm8k": s / 200} for s in (10, 20, 30, 40, 50)]
    rows = joined(history, [Evaluated(40, 0.6, 0.01), Evaluated(20, 0.5, None)])
    assert [(row.step, row.dev) for row in rows] == [(20, 0.5), (40, 0.6), (50, None)]
    assert rows[1].rewards == (0.3, 0.4) and rows[1].means["verified"] == pytest.approx(0.35)
    lines = table(rows)
    assert lines[0].split()[:4] == ["step", "dev", "±", "verified"]
    assert lines[2].split()[:4] == ["40", "60.0", "2.0", "0.350"]
    assert lines[-1] == "verified, by verifier: gsm8k 0.250"
    assert all(len(line) <= 80 for line in lines)
    marked = table(rows, markdown=True)
    assert marked[1].count("---") == marked[0].count("|") - 1 and "gsm8k" in marked[0]
    assert joined([], []) == [] and table([]) == []


# The callback -------------------------------------------------------------------------------------------------------


def state(step: int, first: bool = True) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, max_steps=40, is_world_process_zero=first)


def scores_of(right: np.ndarray):
    from olmes_suite.runs.scores import LeafScores, RunScores, TaskScores

    ids = np.arange(len(right))
    leaf = LeafScores(ids, right.astype(float), ids, np.zeros(len(right), int))
    error = float(right.std() / np.sqrt(len(right)))
    return RunScores("r", "m", {"t": TaskScores("t", {"t": leaf}, value=float(right.mean()), stderr=error)})


def log(watching: Watching, step: int, **metrics: float) -> None:
    logs = {f"rlvr/{name}": value for name, value in metrics.items()}
    watching.on_log(None, state(step), None, {"loss": 1.0, **logs})


def test_a_training_is_recorded_and_warned_of_once(tmp_path, monkeypatch):
    right = np.arange(200) < 120
    runs = {"a": scores_of(right), "b": scores_of(right & (np.arange(200) >= 60)), "c": scores_of(np.zeros(200, bool))}
    monkeypatch.setattr("train_plugins.rl.reward_history.read_run", lambda path: runs[path.name])
    said: list[str] = []
    watching = Watching(tmp_path, every=10, say=said.append)
    watching.on_train_begin(None, state(0), None)
    assert watching.planned == 4
    evaluations = tmp_path / "evaluations.jsonl"
    for step in range(2, 31, 2):
        log(watching, step, verified=step / 40, kl=step / 100, length=50 + step, eos_rate=1.0, no_signal=float("nan"))
        if step % 10 == 2 and step > 10:  # the evaluation ends a while after its checkpoint
            at = step - 2
            run = runs[name := "abc"[at // 10 - 1]]
            result = Result(at, f"checkpoint-{at}", name, {"t": run.tasks["t"].value}, run.tasks["t"].value)
            with evaluations.open("a") as lines:
                lines.write(json.dumps(asdict(result)) + "\n")
    watching.on_log(None, state(30), None, {"train_runtime": 1.0})
    card = tmp_path / "README.md"
    card.write_text("# A model\n")
    watching.olmes_after_stage(SimpleNamespace(), tmp_path, {})
    warnings = [line for line in said if line.startswith("warning")]
    assert len(warnings) == 1, said
    assert "from step 10 to 20" in warnings[0] and "fell by 30.0 points" in warnings[0]
    history = read_history(tmp_path / "rlvr.jsonl")
    assert [line["step"] for line in history] == list(range(2, 31, 2))
    assert history[0] == {"step": 2, "verified": 0.05, "kl": 0.02, "length": 52.0, "eos_rate": 1.0, "no_signal": None}
    text = card.read_text()
    assert text.startswith("# A model\n\n## Reward, KL and dev") and "| 20 | 30.0 |" in text and "warning" in text
    rows = [line.split()[:2] for line in said if line.lstrip().startswith(("10 ", "20 "))]
    assert rows == [["10", "60.0"], ["20", "30.0"]]


def test_falls_of_runs_that_stopped_early_count_all_of_their_looks(tmp_path):
    right = np.arange(200) < 120
    before, after = scores_of(right), scores_of(right & (np.arange(200) >= 9))
    watching = Watching(tmp_path, every=10, say=lambda line: None)
    watching.runs = {10: before, 20: after}
    plain = watching._falls(20)[10]
    watching.runs[20] = replace(after, stopped=Stopped(verdict="fail", of_looks=12))
    assert watching._falls(20)[10].p_drop == pytest.approx(12 * plain.p_drop)
    watching.runs[10] = replace(before, stopped=Stopped(verdict="pass", of_looks=9000))
    assert watching._falls(20)[10].p_drop == 1


def test_projected_averages_are_said(tmp_path):
    said: list[str] = []
    (tmp_path / "evaluations.jsonl").write_text(
        json.dumps(asdict(Result(1, "c", "r", {"a": 0.5}, 0.5, projected=True, stderr=0.01))) + "\n"
    )
    watching = Watching(tmp_path, every=1, say=said.append)
    watching.on_train_begin(None, state(0), None)
    log(watching, 1, kl=0.5)
    watching.olmes_after_stage(SimpleNamespace(), tmp_path, {})
    assert said[-1] == "dev: projected to all documents"
    assert any(line.split()[:3] == ["1", "50.0", "2.0"] for line in said)


def test_a_resumed_training_goes_on_with_its_history(tmp_path):
    (tmp_path / "rlvr.jsonl").write_text('{"step": 1, "kl": 0.1}\n{"step": 2, "kl": 0.2}\n{"step": 3, "kl')
    watching = Watching(tmp_path, say=lambda line: None)
    watching.on_train_begin(None, state(1), None)
    log(watching, 2, kl=0.25)
    assert read_history(tmp_path / "rlvr.jsonl") == [{"step": 1, "kl": 0.1}, {"step": 2, "kl": 0.25}]


def test_only_the_first_process_writes(tmp_path):
    watching = Watching(tmp_path, say=lambda line: pytest.fail(line))
    watching.on_train_begin(None, state(0, first=False), None)
    watching.on_log(None, state(1, first=False), None, {"rlvr/kl": 0.5})
    assert not (tmp_path / "rlvr.jsonl").exists()


def test_an_evaluation_that_cannot_be_read_stops_nothing(tmp_path):
    said: list[str] = []
    (tmp_path / "evaluations.jsonl").write_text(
        json.dumps(asdict(Result(1, "c", str(tmp_path / "no"), {}, 0.5))) + "\n"
    )
    watching = Watching(tmp_path, every=1, say=said.append)
    watching.on_train_begin(None, state(0), None)
    log(watching, 1, kl=0.5)
    log(watching, 2, kl=0.5)
    watching.olmes_after_stage(SimpleNamespace(), tmp_path, {})
    assert sum("cannot be compared" in line for line in said) == 1


def test_shown_metrics_have_headings():
    assert set(reward_table.SHOWN) == {"verified", "kl", "length", "eos_rate", "no_signal"}
