"""`--limit` as a share and `--max-documents`: which documents a run asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from olmes_suite.errors import UsageError
from olmes_suite.evaluation.document_cap import cap, check_limits, limit_note, limit_of, share_out, within
from olmes_suite.evaluation.plan import Leaf, Options, TaskPlan, identity_of


class Rows:
    """A task's documents, as many as asked."""

    column_names = ()

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number


class Task:
    def __init__(self, number: int) -> None:
        self.task_docs = Rows(number)


def plans(**tasks: list[int]) -> list[TaskPlan]:
    made = []
    for name, sizes in tasks.items():
        leaves: list[Any] = [Leaf(f"{name}_{i}", Task(size), range(size)) for i, size in enumerate(sizes)]  # type: ignore[arg-type]
        made.append(TaskPlan(name, "acc", "micro" if name.startswith("micro") else "macro", leaves=leaves))
    return made


def counts(chosen: list[TaskPlan]) -> dict[str, list[int]]:
    return {plan.name: [len(leaf.rows) for leaf in plan.leaves] for plan in chosen}


def test_tasks_share_equally_and_a_group_by_its_weights() -> None:
    chosen = plans(small=[4], large=[500], macro=[100, 2, 100], micro=[90, 10, 0])
    cap(chosen, Options("m", max_documents=94))
    assert counts(chosen) == {"small": [4], "large": [30], "macro": [14, 2, 14], "micro": [27, 3, 0]}


def test_a_larger_cap_contains_a_smaller_one() -> None:
    before: set[tuple[str, int]] = set()
    for total in (4, 5, 17, 40, 300):
        chosen = plans(one=[50], micro=[70, 20, 5])
        cap(chosen, Options("m", max_documents=total))
        asked = {(leaf.name, row) for plan in chosen for leaf in plan.leaves for row in leaf.rows}
        assert before <= asked and len(asked) == min(total, 145)
        before = asked


def test_a_cap_below_the_number_of_leaf_tasks_is_refused() -> None:
    with pytest.raises(UsageError, match=r"the run has 58 leaf tasks \(macro has 57\)"):
        cap(plans(one=[9], macro=[3] * 57), Options("m", max_documents=57))


def test_a_failed_task_has_no_share() -> None:
    chosen = plans(one=[50], two=[50])
    chosen[0].error, chosen[0].leaves = "no data", []
    cap(chosen, Options("m", max_documents=20))
    assert counts(chosen)["two"] == [20]


def test_a_share_is_rounded_up_as_in_lm_eval() -> None:
    assert [limit_of(0.1, n) for n in (1, 10, 11, 1319)] == [1, 1, 2, 132]
    assert limit_of(7, 1319) == 7


@pytest.mark.parametrize("limit", [0, -1, 1.5, 0.0, float("nan"), float("inf")])
def test_a_limit_that_is_no_number_of_documents(limit: float) -> None:
    with pytest.raises(UsageError, match="--limit must be a whole number"):
        check_limits(Options("m", limit=limit))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backend": "floor"}, "--backend floor"),
        ({"baseline": "x"}, "--baseline"),
        ({"max_documents": 0}, "at least 1"),
    ],
)
def test_what_a_cap_does_not_go_with(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_limits(Options("m", **{"max_documents": 5, **options}))


def test_the_number_of_documents_is_said_where_a_group_multiplies_it() -> None:
    said = limit_note(plans(one=[10], macro=[10] * 57), Options("m", limit=10))
    assert said is not None and "(macro has 57): 580 documents" in said
    assert limit_note(plans(one=[10]), Options("m", limit=10)) is None


def test_a_cap_is_part_of_a_runs_identity_and_its_absence_is_not() -> None:
    before = identity_of(Options("m", backend="mock", runs=Path("x")), [], "f")
    assert identity_of(Options("m", backend="mock", name="n"), [], "f") == before
    assert identity_of(Options("m", backend="mock", max_documents=9), [], "f") != before
    assert before[:8] == "b931b7ca"  # as before the options existed


def test_sharing_out() -> None:
    assert share_out([(1, 100), (1, 2), (3, 3)], 30, []) == [25, 2, 3]
    assert within([5, 5], 3, False) == [2, 1]
    assert within([0, 5], 3, True) == [0, 3]
