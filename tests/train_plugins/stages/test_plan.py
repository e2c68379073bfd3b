"""How a batch is split into forward passes."""

from __future__ import annotations

import pytest

from olmes_suite.errors import UsageError
from train_plugins.stages.plan import accumulation, pass_rows


@pytest.mark.parametrize(
    ("batch", "given", "processes", "rows"),
    [(2, {}, 1, 2), (128, {}, 8, 8), (12, {}, 1, 6), (13, {}, 1, 1), (24, {}, 8, 3), (None, {}, 1, 8),
     (6, {"per_device_train_batch_size": 4}, 1, 4)],
)  # fmt: skip
def test_a_batch_that_the_default_does_not_divide_has_smaller_passes(
    batch: int | None, given: dict[str, int], processes: int, rows: int
) -> None:
    assert pass_rows(batch, given, processes) == rows


def test_a_batch_that_cannot_be_split_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match=r"batch_size 6 is not a multiple of the 4 processes"):
        accumulation(6, {}, 4)
    with pytest.raises(UsageError, match=r"the 4 rows of one pass \(trainer.per_device_train_batch_size × 1 process\)"):
        accumulation(6, {"per_device_train_batch_size": 4}, 1)
