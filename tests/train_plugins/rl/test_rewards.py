"""Several named rewards of a response: what each asks, how they are weighed, what a row may change."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rlvr_fixture import history, make_rlvr, prompt_rows, train_rlvr
from thinking_model import OPENING, thinking_tokenizer
from train_fixture import need_trl

from olmes_suite.errors import StageRefused, UsageError
from train_plugins.data.rlvr_rows import prompt_row, with_truth
from train_plugins.rl.answers import Answers
from train_plugins.rl.keys import RewardKeys, RlvrKeys
from train_plugins.rl.rewards import Rewards, check_rewards, row_reader
from train_plugins.verifiers import Call

FORM = {"answer": RewardKeys(), "think_format": 0.1, "short": RewardKeys("up_to_max_length", 0.2, truth=3)}


class Fixed:
    """Stands in for the verifiers: a verdict by name."""

    def __init__(self, **verdicts: float | None) -> None:
        self.verdicts = verdicts
        self.calls: list[Call] = []

    def verify(self, calls: Sequence[Call]) -> list[float | None]:
        self.calls += calls
        return [self.verdicts[call.verifier] for call in calls]


def encoded(**row: Any) -> dict[str, Any]:
    """A row as the trainer holds it."""
    made = prompt_row({"messages": [{"role": "user", "content": "Hi"}], **row})
    return {"prompt": made.pop("messages"), "row": 3, **made}


def scored(keys: RlvrKeys, row: dict[str, Any], verdicts: Any, text: str = "8", ids: Sequence[int] = (1, 2)) -> Any:
    (found,) = Rewards.of(keys).score(verdicts, [row], [text], [ids], None)
    return found


def test_without_rewards_the_rows_verifier_decides() -> None:
    row = encoded(dataset="gsm8k", ground_truth="8")
    found = scored(RlvrKeys(), row, Fixed(gsm8k=0.5))
    assert (found.total, found.verified, found.verifiers) == (0.5, 0.5, {"gsm8k": 0.5})
    assert scored(RlvrKeys(), row, Fixed(gsm8k=None)).total is None


def test_named_rewards_are_weighed_and_kept_apart() -> None:
    verdicts: Any = Fixed(gsm8k=1.0, think_format=0.0, up_to_max_length=0.5)
    found = scored(RlvrKeys(rewards=FORM), encoded(dataset="gsm8k", ground_truth="8"), verdicts)
    assert math.isclose(found.total, 1.0 + 0.2 * 0.5) and found.verified == 1.0
    assert found.rewards == {"answer": 1.0, "think_format": 0.0, "short": 0.5}
    assert [(call.verifier, call.truth) for call in verdicts.calls] == [
        ("gsm8k", "8"), ("think_format", None), ("up_to_max_length", 3)]  # fmt: skip
    assert verdicts.calls[2].row["response_tokens"] == 2 and "response_tokens" not in verdicts.calls[0].row


def test_a_row_may_weigh_rewards_itself() -> None:
    verdicts: Any = Fixed(gsm8k=1.0, up_to_max_length=1.0)
    row = encoded(dataset="gsm8k", ground_truth="8", reward_weights={"think_format": 0, "short": -1.0, "gsm8k": None})
    found = scored(RlvrKeys(rewards=FORM), row, verdicts)
    assert found.total == 0.0 and set(found.rewards) == {"answer", "short"} and len(verdicts.calls) == 2


def test_several_verifiers_of_a_row_are_added() -> None:
    row = encoded(dataset=["gsm8k", "string"], ground_truth=["8", ["eight"]], reward_weights='{"string": 0.5}')
    verdicts: Any = Fixed(gsm8k=1.0, string=1.0)
    found = scored(RlvrKeys(), row, verdicts)
    assert (found.total, found.verified) == (1.5, 1.0) and found.verifiers == {"gsm8k": 1.0, "string": 1.0}
    assert [call.truth for call in verdicts.calls] == ["8", ["eight"]]
    assert Rewards.of(RlvrKeys(rewards=FORM)).verifiers([row["verifier"]]) == (
        "gsm8k", "string", "think_format", "up_to_max_length")  # fmt: skip
    assert scored(RlvrKeys(), row, Fixed(gsm8k=1.0, string=None)).total is None  # half a verdict is none


@pytest.mark.parametrize(
    ("row", "truths"),
    [
        ({"dataset": ["gsm8k"], "ground_truth": ["8"]}, [("gsm8k", "8")]),
        ({"dataset": ["gsm8k"], "ground_truth": "8"}, [("gsm8k", "8")]),
        ({"dataset": "string", "ground_truth": ["a", "b"]}, [("string", ["a", "b"])]),
        ({"verifier": ["gsm8k", "string"], "ground_truth": '["8", "b"]'}, [("gsm8k", "8"), ("string", "b")]),
    ],
)
def test_lists_of_verifiers_and_truths(row: dict[str, Any], truths: Any) -> None:
    asked = Rewards.of(RlvrKeys()).asked(with_truth(encoded(**row), None), {})
    assert [(one.verifier, one.truth) for one in asked] == truths


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"dataset": ["gsm8k", "string"], "ground_truth": ["8"]}, "2 verifiers needs as many truths; .* is 1 truths"),
        ({"dataset": "gsm8k + string", "ground_truth": "42"}, "'gsm8k . string' is no verifier's name; give a list"),
        ({"dataset": ["gsm8k", "string"], "ground_truth": "8"}, "2 verifiers needs as many truths; .* is no list"),
        ({"dataset": ["gsm8k", 3], "ground_truth": ["8", "9"]}, "is a text or a list of texts"),
        ({"dataset": [], "ground_truth": []}, "no verifier"),
        ({"dataset": ["gsm8k", "gsm8k"], "ground_truth": ["8", "9"]}, "names one twice: gsm8k, gsm8k"),
        ({"dataset": ["gsm8k", "string"], "ground_truth": ["no digits", "a"]}, "gsm8k cannot read: it contains no num"),
        ({"dataset": "gsm8k", "ground_truth": "8", "reward_weights": {"fromat": 1}}, "unknown reward 'fromat'"),
        ({"dataset": "gsm8k", "ground_truth": "8", "reward_weights": {"short": "x"}}, "weight of short is no number"),
        ({"dataset": "gsm8k", "ground_truth": "8", "reward_weights": [1]}, "no mapping from names to numbers"),
    ],
)
def test_a_row_that_cannot_be_rewarded_is_named(row: dict[str, Any], why: str) -> None:
    row = {"messages": [{"role": "user", "content": "Hi"}], **row}
    with pytest.raises(ValueError, match=why):
        row_reader(RlvrKeys(rewards=FORM))(row)


def test_a_column_may_hold_a_rewards_truth() -> None:
    keys = RlvrKeys(rewards={"near": RewardKeys("string_f1", column="answers")})
    row = {"messages": [{"role": "user", "content": "Hi"}], "answers": ["a cat"]}
    made = row_reader(keys)(row)  # no reward asks the row's verifier, so it needs none
    assert [(one.verifier, one.truth) for one in Rewards.of(keys).asked(made, json.loads(made["extra"]))] == [
        ("string_f1", ["a cat"])]  # fmt: skip
    for answers, why in ((None, "no column 'answers'"), ([], "a 'answers' that the verifier string_f1 cannot read")):
        with pytest.raises(ValueError, match=why):
            row_reader(keys)({**row, "answers": answers})


@pytest.mark.parametrize(
    ("rewards", "why"),
    [
        ({}, "name at least one reward"),
        ({"format": 0.1}, r"rlvr\.rewards\.format: unknown verifier 'format'"),
        ({"a": RewardKeys("gpqa")}, "unseen suite"),
        ({"a/b": RewardKeys()}, "without '/'"),
        ({"a": RewardKeys(weight=float("nan"))}, "the weight must be a number"),
        ({"a": RewardKeys(weight=0)}, "all weights are 0"),
        ({"a": RewardKeys(truth="8")}, "remove truth and column"),
        ({"a": RewardKeys("string", truth="8", column="b")}, "either truth or column"),
        ({"short": RewardKeys("max_length", truth="long")}, "the verifier max_length cannot read its truth: length"),
        ({"re": RewardKeys("re_search", truth="(")}, "it is no regular expression"),
        ({"max_length": 1.0}, r"rlvr\.rewards\.max_length: .* compares with a ground truth: set truth or column"),
    ],
)
def test_wrong_rewards_are_one_line(rewards: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        check_rewards(RlvrKeys(rewards=rewards))


def test_a_reward_without_a_truth_reads_the_rows_columns() -> None:
    keys = RlvrKeys(rewards={"follows": RewardKeys("ifeval_fraction")})
    check_rewards(keys)
    row = {"messages": [{"role": "user", "content": "Hi"}], "kwargs": [{}]}
    row_reader(keys)({**row, "instruction_id_list": ["punctuation:no_comma"]})
    with pytest.raises(ValueError, match=r"ifeval_fraction cannot read: .*did you mean 'punctuation:no_comma'"):
        row_reader(keys)({**row, "instruction_id_list": ["punctuation:no_coma"]})


def test_form_is_read_of_all_and_answers_after_the_thought() -> None:
    tokenizer = thinking_tokenizer(OPENING)
    answers = Answers(tokenizer, RlvrKeys())
    row = encoded(dataset="gsm8k", ground_truth="8")
    for said, read in (
        ("so 7\n</think>\n\nIt is 8.</s>", ["\n\nIt is 8.", "<think>so 7\n</think>\n\nIt is 8."]),
        ("so 7, so", [None, "<think>so 7, so"]),
    ):
        ids = tokenizer(said, add_special_tokens=False)["input_ids"]
        rewards = Rewards.of(RlvrKeys(rewards={"answer": RewardKeys(), "think_format": 0.1}))
        calls = rewards.calls(row, tokenizer.decode(ids, skip_special_tokens=True), ids, answers)
        assert [call and call.response for call in calls] == read
        assert calls[1] is not None and calls[1].row["thought_marks"] == ["<think>", "</think>"]


@pytest.mark.long
def test_each_reward_is_logged_by_its_name(rlvr_folder: Path) -> None:
    need_trl()
    rows = [{**row, "dataset": [row["dataset"]], "ground_truth": [row["ground_truth"]]} for row in prompt_rows(8)]
    rewards = {"answer": {"weight": 1}, "short": {"verifier": "up_to_max_length", "truth": 4, "weight": 0.25}}
    out = train_rlvr(rlvr_folder, "grpo", rows, trainer={"max_steps": 2}, rlvr={"rewards": rewards, "reward": 2.0})
    for line in history(out):
        assert {"rlvr/rewards/answer", "rlvr/rewards/short", "rlvr/verified"} <= set(line)
        assert line["rlvr/rewards/answer"] == pytest.approx(line["rlvr/verified"])
    made = make_rlvr(rlvr_folder, "grpo", rows, rlvr={"rewards": {"answer": {}, "think_format": 0.1}}).own.rewards
    assert made == {"answer": RewardKeys(), "think_format": 0.1}
    assert "rewards" not in make_rlvr(rlvr_folder, "grpo", rows).as_data()["rlvr"]


JUDGE = {"model": "m", "base_url": "", "tries": 1, "replies": 1}


def judged_recipe(url: str, folder: Path) -> dict[str, Any]:
    """Keys under `rlvr` for a judge beside the row's verifier."""
    rewards = {"answer": {"weight": 1}, "judge": 0.5}
    return {"rewards": rewards, "judge": {**JUDGE, "base_url": url, "cache": str(folder / "judged")}}


@pytest.mark.long
def test_a_judge_that_goes_down_stops_the_stage_which_resumes(
    rlvr_checkpoints: Path, tmp_path: Path, no_plugins: None
) -> None:
    """The second half of the rollouts meets a server that fails; a later one answers, and the stage goes on."""
    need_trl()
    import shutil

    from judge_server import Reply, chat, judge_server

    shutil.copytree(rlvr_checkpoints, tmp_path, dirs_exist_ok=True)
    answers = [20]

    def reply(body: Any, before: int) -> Reply:
        up = len(server.seen) < answers[0]
        return Reply(chat(f'{{"score": {1 + len(server.seen) % 9}}}')) if up else Reply(None, status=500)

    with judge_server(reply) as server:
        keys = judged_recipe(server.url, tmp_path)
        settings: dict[str, Any] = {"trainer": {"max_steps": 6, "save_steps": 1}, "rlvr": keys}
        with pytest.raises(StageRefused, match=r"the judge m at .*: HTTP 500.*continue with --resume") as stopped:
            train_rlvr(tmp_path, "grpo", prompt_rows(24), **settings)
        assert "\n" not in str(stopped.value) and (tmp_path / "out/checkpoint-1").is_dir()
        answers[0] = 1000
        first = train_rlvr(tmp_path, "grpo", prompt_rows(24), go_on=True, trainer=settings["trainer"], rlvr=keys)
    assert {"rlvr/judge/requests", "rlvr/judge/prompt_tokens", "rlvr/rewards/judge"} <= set(history(first)[0])


def test_a_judge_is_checked_before_the_model_is_loaded(rlvr_folder: Path, quick_retries: None) -> None:
    need_trl()
    from train_plugins.running.prepare_stage import prepare, trainer_arguments
    from train_plugins.stages import registry

    stage = registry.find("rlvr")
    for rlvr, why in (
        ({"rewards": {"judge": 1.0}}, r"the verifier judge needs a judge: set rlvr\.judge"),
        ({"verifiers": {"gsm8k": "judge", "string": "string"}}, "needs a judge"),
        (judged_recipe("http://127.0.0.1:9/v1", rlvr_folder), r"rlvr\.judge: m at .*: no connection"),
    ):
        wanted, arguments = trainer_arguments(stage, make_rlvr(rlvr_folder, "grpo", prompt_rows(8), rlvr=rlvr))
        with pytest.raises(UsageError, match=why):
            prepare(stage, wanted, arguments)
