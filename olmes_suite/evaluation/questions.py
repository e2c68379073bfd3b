"""The questions of a recorded run as a data frame, rendered again from the tasks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from olmes_suite.evaluation.run_prompts import render
from olmes_suite.runs import frames
from olmes_suite.runs.run import Run

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("olmes_suite")
COLUMNS = ("task", "doc_id", "question", "choices", "prompt")


def questions(run: Run, task: str) -> pd.DataFrame:
    """Build a table with a row for each scored document of a task or sub-task.

    Columns: `task` and `doc_id`, as in the tables of documents and responses; `question`, the last message of the
    prompt, or the whole prompt where it is no chat; `choices`, the continuations that a log-likelihood task compares,
    otherwise None; `prompt`, the messages as a list of {"role", "content"}, or the text. A prompt that cannot be
    rendered here is None, and the log `olmes_suite` says why. Raises UsageError for a task that is not in the run.
    """
    import pandas as pd

    top_tasks = [plan.task for plan in run.manifest.plan]
    top_task, _ = frames.find(run.path, top_tasks, task)
    documents = frames.documents(run.path, top_tasks, task)
    places = list(zip(documents["task"], documents["doc_id"].tolist(), strict=True))
    prompts, note = render(run.path, run.manifest, top_task, places)
    if note:
        log.warning("%s: %s", task, note)
    rows = [(*place, *_columns(prompts.get(place, {}))) for place in places]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _columns(prompt: dict[str, Any]) -> tuple[str | None, list[str] | None, list[dict[str, str]] | str | None]:
    messages = prompt.get("m")
    if messages is None:
        return prompt.get("t"), prompt.get("c"), prompt.get("t")
    return messages[-1][1], prompt.get("c"), [{"role": role, "content": text} for role, text in messages]
