"""`--limit` and `--max-documents`: how many documents of each leaf task a run asks."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from olmes_suite.errors import UsageError
from olmes_suite.tasks.index import PREFIX
from olmes_suite.wording import count

if TYPE_CHECKING:
    from olmes_suite.evaluation.plan import Options, TaskPlan


def check_limits(options: Options) -> None:
    """Raise UsageError for a limit or a cap that is no number of documents, and for a cap beside what excludes it."""
    limit, cap = options.limit, options.max_documents
    if limit is not None and not (0 < limit < 1 or (limit >= 1 and float(limit).is_integer())):
        raise UsageError(f"--limit must be a whole number of at least 1, or a share between 0 and 1, not {limit}")
    if cap is None:
        return
    if cap < 1:
        raise UsageError(f"--max-documents must be at least 1, not {cap}")
    others = {
        "--plan": options.planned is not None,
        "--until-decided": options.until_decided is not None,
        "--backend floor": options.backend == "floor",
        "--baseline": options.baseline is not None,
    }
    if other := next((name for name, given in others.items() if given), None):
        raise UsageError(f"--max-documents does not go with {other}; leave one of them out")


def limit_of(limit: int | float, documents: int) -> int:
    """Return the number of documents of a leaf task under `--limit`; a share is rounded up, as in lm-eval."""
    return math.ceil(documents * limit) if limit < 1 else int(limit)


def cap(plans: Sequence[TaskPlan], options: Options) -> None:
    """Choose the documents of a run with `--max-documents`, from those that `--limit` leaves.

    The tasks share the documents equally; what a small task does not need goes to the others. In a group whose score
    weights sub-tasks by their documents, they share in proportion to their size (Webster's method), in other groups
    equally. Each has at least one. The documents are those of `--limit`; a larger cap contains those of a smaller one.
    """
    from olmes_suite.evaluation.plan import limited

    if options.max_documents is None:
        return
    asked = [plan for plan in plans if plan.error is None]
    shares = share_out([(len(plan.leaves), plan.documents) for plan in asked], options.max_documents, asked)
    for plan, share in zip(asked, shares, strict=True):
        sizes = [len(leaf.rows) for leaf in plan.leaves]
        for leaf, most in zip(
            plan.leaves, within(sizes, share, plan.aggregate in ("micro", "stratified")), strict=True
        ):
            leaf.rows = limited(leaf, most, options.seed) if most < len(leaf.rows) else leaf.rows


def share_out(bounds: Sequence[tuple[int, int]], total: int, plans: Sequence[TaskPlan]) -> list[int]:
    """Share a number of documents equally between tasks, given the least and the most of each.

    Raises UsageError where the tasks have more leaf tasks than there are documents.
    """
    least = sum(low for low, _ in bounds)
    if total < least:
        largest = max(plans, key=lambda plan: len(plan.leaves))
        why = f" ({largest.name.removeprefix(PREFIX)} has {len(largest.leaves)})" if len(largest.leaves) > 1 else ""
        leaves = count(least, "leaf task", separated=True)
        raise UsageError(
            f"--max-documents {total}: the run has {leaves}{why} and asks at least one document "
            "of each; raise it, or name fewer tasks"
        )
    shares = [min(low, high) for low, high in bounds]
    open_tasks = [(share, place) for place, share in enumerate(shares) if share < bounds[place][1]]
    heapq.heapify(open_tasks)
    for _ in range(total - sum(shares)):
        if not open_tasks:
            break
        share, place = heapq.heappop(open_tasks)
        shares[place] = share + 1
        if shares[place] < bounds[place][1]:
            heapq.heappush(open_tasks, (shares[place], place))
    return shares


def within(sizes: Sequence[int], total: int, by_size: bool) -> list[int]:
    """Share a task's documents between its leaf tasks, at least one each: equally, or in proportion to their sizes."""
    shares = [min(1, size) for size in sizes]

    def claim(place: int) -> tuple[float, int]:
        return ((2 * shares[place] + 1) / sizes[place] if by_size else shares[place], place)

    open_leaves = [claim(place) for place, size in enumerate(sizes) if shares[place] < size]
    heapq.heapify(open_leaves)
    for _ in range(total - sum(shares)):
        if not open_leaves:
            break
        _, place = heapq.heappop(open_leaves)
        shares[place] += 1
        if shares[place] < sizes[place]:
            heapq.heappush(open_leaves, claim(place))
    return shares


def limit_note(plans: Sequence[TaskPlan], options: Options) -> str | None:
    """Say how many documents `--limit` amounts to, where tasks with sub-tasks multiply it; None elsewhere."""
    asked = [plan for plan in plans if plan.error is None]
    groups = [plan for plan in asked if len(plan.leaves) > 1]
    if options.limit is None or options.max_documents is not None or not groups:
        return None
    largest = max(groups, key=lambda plan: len(plan.leaves))
    total = sum(plan.documents for plan in asked)
    name = largest.name.removeprefix(PREFIX)
    return (
        f"--limit {options.limit} counts for each sub-task ({name} has {len(largest.leaves)}): {total:,} documents; "
        "--max-documents N limits all together"
    )
