"""The task files: names, groups, few-shot turns and descriptions."""

from __future__ import annotations

import pytest
import yaml
from task_parity import FILES, LEAVES, leaves, task

COUNTS = {
    "math": 7, "drop": 1, "popqa": 1, "truthfulqa": 1, "deepmind_math": 2 * 56, "ifeval": 1, "mmlu": 3 * 57,
    "mmlu_pro": 2 * 14, "gpqa": 2, "agieval": 8, "bbh": 2 * 27,
}  # fmt: skip
"""Folder to the number of its tasks that have documents of their own."""
GROUPS = {
    "math": ["tulu3_math"], "deepmind_math": ["tulu3_deepmind_math", "tulu3_deepmind_math_v0"],
    "mmlu": ["tulu3_mmlu", "tulu3_mmlu_mc", "tulu3_mmlu_0shot_cot"],
    "mmlu_pro": ["tulu3_mmlu_pro", "tulu3_mmlu_pro_llama31"], "agieval": ["tulu3_agieval"],
    "bbh": ["tulu3_bbh", "tulu3_bbh_v0"],
}  # fmt: skip


def test_every_leaf_is_in_its_group_and_loads() -> None:
    for group, size in (("math", 7), ("deepmind_math", 56), ("deepmind_math_v0", 56)):
        members = yaml.safe_load(FILES[f"tulu3_{group}"].read_text(encoding="utf-8"))["task"]
        assert len(members) == size == len(set(members))
        assert set(members) <= set(LEAVES)
    for folder in ("math", "drop", "popqa", "truthfulqa", "deepmind_math", "ifeval"):
        for name in leaves(folder):
            made = task(name)
            assert made.config.task == name
            assert made.requests(made.eval_docs[0], 0, chat=True)


def test_every_leaf_has_its_name_and_nothing_left_over() -> None:
    for folder, count in COUNTS.items():
        assert len(leaves(folder)) == count, folder
        names = {name for name, file in FILES.items() if file.parent.name == folder}
        assert names == {*leaves(folder), *GROUPS.get(folder, [])}
    assert "tulu3_mmlu_pro_computer science" in LEAVES


@pytest.mark.parametrize(
    "name", ["tulu3_mmlu_mc_anatomy", "tulu3_mmlu_pro_llama31_computer science", "tulu3_bbh_navigate"]
)
def test_few_shot_turns_alternate_and_hold_the_shots(name: str) -> None:
    made = task(name)
    request = made.requests(made.eval_docs[0], 0, chat=True)[0]
    assert request.messages is not None
    roles = [role for role, _ in request.messages]
    assert roles == ["user", "assistant"] * made.config.num_fewshot + ["user"]


def test_descriptions_stand_in_the_first_turn_only() -> None:
    for name, start in (
        ("tulu3_mmlu_mc_us_foreign_policy", "The following are multiple choice questions (with answers) about us f"),
        ("tulu3_bbh_object_counting", "Questions that involve enumerating objects"),
    ):
        made = task(name)
        messages = made.requests(made.eval_docs[0], 0, chat=True)[0].messages
        assert messages is not None
        assert [content.startswith(start) for _, content in messages] == [True] + [False] * (len(messages) - 1)
