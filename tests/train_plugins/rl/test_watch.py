"""The watch over rollouts: what it names and when, and how often it is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rlvr_fixture import Coin, history, make_rlvr, prompt_rows, train_rlvr
from train_fixture import need_trl

from olmes_suite.errors import StageRefused, UsageError
from olmes_suite.runs.schema import read_lineage
from train_plugins.rl import watching
from train_plugins.rl.keys import WatchKeys
from train_plugins.rl.watch import KINDS, Rollout, Watch, examine, most_repeated, rise
from train_plugins.rl.watching import answer_hash, statistics

GOOD = Rollout(1, prompts=16, responses=128, ended=0.9, flat=0.4, unclosed=0.05, repeated=0.02, verified=0.5)


def named(*rollouts: Rollout) -> list[tuple[str, int]]:
    """Add rollouts to a watch, numbered; return the kind of each alarm and the number of the rollout that raised it."""
    watch = Watch()
    return [
        (alarm.kind, number)
        for number, one in enumerate(rollouts, 1)
        for alarm in watch.add(replace(one, step=number))
    ]  # fmt: skip


def run(count: int, **values: Any) -> list[Rollout]:
    return [replace(GOOD, **values)] * count


def test_a_healthy_training_is_not_named() -> None:
    assert named(*run(100)) == []


@pytest.mark.parametrize("healthy", [0, 2, 30])
@pytest.mark.parametrize("prompts", [4, 16])
@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("no_end", [{"ended": 0.0}] * 5),
        ("no_end", [{"ended": 0.03}] * 5),
        ("no_spread", [{"flat": 1.0}] * 5),
        ("unclosed", [{"unclosed": 1.0}] * 5),
        ("repeated", [{"repeated": 0.95}] * 5),
    ],
)
def test_a_run_of_bad_rollouts_is_named_within_five(kind: str, bad: Any, healthy: int, prompts: int) -> None:
    shape = {"prompts": prompts, "responses": 8 * prompts}
    alarms = named(*run(healthy, **shape), *(replace(GOOD, **shape, **values) for values in bad))
    assert [alarm[0] for alarm in alarms] == [kind]
    assert healthy < alarms[0][1] <= healthy + 5


@pytest.mark.parametrize("healthy", [2, 10, 60])
@pytest.mark.parametrize("kind", ["unclosed", "repeated"])
def test_a_rising_share_is_named_within_five(kind: str, healthy: int) -> None:
    rising = [replace(GOOD, **{kind: share}) for share in (0.15, 0.25, 0.35, 0.45, 0.55)]
    ((found, at),) = named(*run(healthy), *rising)
    assert found == kind and healthy < at <= healthy + 5


def test_a_slow_rise_is_named_in_the_end() -> None:
    slow = [replace(GOOD, unclosed=0.02 + number * 0.001) for number in range(400)]
    ((kind, at),) = named(*slow)
    assert kind == "unclosed" and at < 200


def test_a_lonely_bad_rollout_is_not_named() -> None:
    alone = replace(GOOD, ended=0.0, flat=1.0)
    assert named(*run(5), alone, *run(5), alone, alone, *run(5)) == []


def test_a_fall_and_a_level_that_was_always_there_are_not_named() -> None:
    assert named(*run(10, repeated=0.5), *run(30, repeated=0.1)) == []
    assert named(*run(60, repeated=0.5, unclosed=0.6)) == []  # answers of yes and no, a model that thinks long


def test_models_without_thoughts_and_groups() -> None:
    assert named(*run(20, flat=None, unclosed=None, repeated=None)) == []


def test_each_kind_is_named_once_with_what_to_do() -> None:
    watch = Watch()
    alarms = [alarm for _ in range(12) for alarm in watch.add(replace(GOOD, ended=0, flat=1, unclosed=1, repeated=1))]
    assert sorted(alarm.kind for alarm in alarms) == sorted(KINDS)
    assert all(alarm.line.startswith(f"warning: watch: {alarm.kind}: ") and "\n" not in alarm.line for alarm in alarms)
    assert "accept 50 %" in next(alarm.text for alarm in alarms if alarm.kind == "repeated")


def test_a_watch_goes_on_after_a_checkpoint() -> None:
    watch = Watch()
    for one in (*run(3), *run(2, ended=0.0)):
        watch.add(one)
    later = Watch.from_data(json.loads(json.dumps(watch.as_data())))
    assert later == watch and [alarm.kind for alarm in later.add(replace(GOOD, ended=0.0))] == ["no_end"]
    again = Watch.from_data(later.as_data())
    assert again.add(replace(GOOD, ended=0.0)) == []  # it was named before the stop


@pytest.mark.parametrize(
    ("prompts", "answers", "expected"),
    [
        ([1, 1, 2, 2], [7, 7, 8, 8], (0.0, None)),  # each prompt's own answer
        ([1, 1, 2, 2], [7, 7, 7, 7], (1.0, 7)),
        ([1, 1, 2, 2], [7, 8, 7, 9], (0.5, 7)),
        ([1, 2, 3, 4], [7, 7, 8, 8], (0.5, 7)),
        ([1, 2, 2, 2], [7, 8, 8, 7], ((1 + 1 / 3) / 2, 7)),
        ([], [], (0.0, None)),
    ],
)
def test_the_answer_that_prompts_share(prompts: Sequence[int], answers: Sequence[int], expected: Any) -> None:
    assert most_repeated(prompts, answers) == pytest.approx(expected) if expected[1] else expected


# How often it is wrong --------------------------------------------------------------------------------------------


def shares(rng: np.random.Generator, count: int, prompts: int, group: int, share: float, rho: float) -> np.ndarray:
    """Shares of rollouts whose responses are correlated within a prompt: beta-binomial."""
    size = (1 - rho) / rho
    chance = rng.beta(share * size, (1 - share) * size, (count, prompts))
    return rng.binomial(group, chance).sum(axis=1) / (prompts * group)


@pytest.mark.parametrize(("prompts", "group"), [(2, 4), (4, 4), (16, 8)])
def test_false_alarms_of_a_share_that_only_fluctuates(prompts: int, group: int) -> None:
    """Named in at most 5 % of trainings of 200 rollouts, also where responses are more alike than is assumed."""
    rng = np.random.default_rng(5)
    trainings, wrong = 45, 0
    for number in range(trainings):
        share, rho = (0.03, 0.15, 0.5)[number % 3], (0.2, 0.3, 0.5)[number // 3 % 3]
        drawn = shares(rng, 200, prompts, group, share, rho)
        size = Rollout(1, prompts, prompts * group, 1.0).independent
        known = [(float(value), size) for value in drawn]
        wrong += any(rise(known[:at]) is not None for at in range(3, 201))
    assert wrong <= 0.05 * trainings


@pytest.mark.parametrize(("prompts", "group", "least"), [(4, 4, 0.9), (16, 8, 1.0)])
def test_a_noisy_rise_is_found_within_five(prompts: int, group: int, least: float) -> None:
    rng = np.random.default_rng(6)
    trainings, found = 30, 0
    size = Rollout(1, prompts, prompts * group, 1.0).independent
    for _ in range(trainings):
        level = np.concatenate([np.full(20, 0.05), [0.3, 0.5, 0.7, 0.8, 0.9]])
        drawn = [float(shares(rng, 1, prompts, group, float(one), 0.3)[0]) for one in level]
        known = [(value, size) for value in drawn]
        found += any(rise(known[:at]) is not None for at in range(21, 26))
    assert found >= least * trainings


def test_no_spread_is_not_named_where_most_prompts_are_hard() -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        flat = (rng.random((200, 8)) < 0.7).mean(axis=1)
        assert not any(
            examine([replace(GOOD, prompts=8, responses=64, flat=float(value)) for value in flat[:at]])
            for at in range(5, 200, 5)
        )


# In a training ----------------------------------------------------------------------------------------------------


def test_the_statistics_of_a_rollout() -> None:
    said = ["the same", " the same\n", "other", None]
    given = [[row, answer_hash(answer)] for row, answer in zip((1, 2, 2, 1), said, strict=True)]
    nan = float("nan")
    facts = [[10.0, 1.0, 1.0], [nan, nan, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    found = statistics(4, given, facts, flat=0.5, thinks=True)
    assert (found.step, found.prompts, found.responses, found.ended, found.flat) == (4, 2, 4, 0.5, 0.5)
    assert (found.unclosed, found.repeated, found.verified) == (0.25, 0.75 * 0.75, 1.0)
    assert statistics(4, given, facts, flat=None, thinks=False).unclosed is None
    assert statistics(4, given[1:3], facts[1:3], flat=None, thinks=False).repeated is None  # one prompt


@pytest.mark.long
def test_a_stage_stops_after_a_checkpoint_and_resumes(
    rlvr_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A verifier that accepts everything teaches nothing; it is named after five rollouts."""
    need_trl()
    monkeypatch.setattr(Coin, "verify", lambda self, calls: [1.0] * len(calls))
    keys: dict[str, Any] = {"trainer": {"max_steps": 7, "save_steps": 100},
                            "rlvr": {"watch": {"stop": "no_spread"}, "no_eos_penalty": None}}  # fmt: skip
    with pytest.raises(StageRefused, match=r"stopped by rlvr\.watch after step 5: no_spread: in 5 rollouts in a row"):
        train_rlvr(rlvr_folder, "grpo", prompt_rows(16), **keys)
    (kept,) = (rlvr_folder / "out").glob("checkpoint-*")
    lineage = read_lineage(kept / "olmes_lineage.json")
    assert kept.name == "checkpoint-5" and lineage.watch is not None and lineage.watch[0].startswith("no_spread: in 5")
    assert capsys.readouterr().err.count("warning: watch: no_spread: in 5 rollouts in a row, up to step 5") == 1
    out = train_rlvr(rlvr_folder, "grpo", prompt_rows(16), go_on=True, **keys)
    assert "watch" not in capsys.readouterr().err and read_lineage(out / "olmes_lineage.json").watch == lineage.watch


@pytest.mark.long
def test_it_is_named_without_being_stopped(
    rlvr_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need_trl()
    original = watching.statistics
    monkeypatch.setattr(watching, "statistics", lambda *args, **more: replace(original(*args, **more), ended=0.0))
    out = train_rlvr(rlvr_folder, "grpo", prompt_rows(16), trainer={"max_steps": 4})
    assert capsys.readouterr().err.count("warning: watch: no_end: in 3 rollouts in a row, up to step 3") == 1
    assert any("rlvr/repeated" in line for line in history(out))


def test_what_may_stop_a_stage(tmp_path: Path) -> None:
    need_trl()
    made = make_rlvr(tmp_path, "grpo", prompt_rows(4), rlvr={"watch": {"stop": ["no_end", "repeated"]}}).own.watch
    assert [kind for kind in KINDS if made.stops(kind)] == ["no_end", "repeated"]
    assert all(WatchKeys(("all",)).stops(kind) for kind in KINDS) and not any(map(WatchKeys().stops, KINDS))
    assert "watch" not in make_rlvr(tmp_path, "grpo", prompt_rows(4)).as_data()["rlvr"]
    with pytest.raises(UsageError, match=r"rlvr: watch: stop\[0\]: 'no_ends' is none of all, no_end"):
        make_rlvr(tmp_path, "grpo", prompt_rows(4), rlvr={"watch": {"stop": ["no_ends"]}})
