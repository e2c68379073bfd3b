"""Tasks made of a taskset of the package `verifiers`: the folder with a task file, and the class that it names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olmes_suite.errors import UsageError
from olmes_suite.files import write_text
from olmes_suite.records import Request
from olmes_suite.scoring import tasksets
from olmes_suite.tasks.task import SuiteTask, with_system

TASK = """\
# Written by `olmes tasks taskset {name}`.
task: {task}
class: !function olmes_suite.tasks.taskset_task.TasksetTask
dataset_path: tasksets/{task}
hub: false
made_by: olmes tasks taskset {name}
columns: {{taskset: string, messages: string, data: string}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{messages}}}}"
doc_to_target: ""
num_fewshot: 0
generation_kwargs: {{until: [], max_gen_toks: {tokens}, temperature: 0.0, do_sample: false}}
process_results: !function olmes_suite.scoring.tasksets.score
metric_list: [{{metric: reward, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0, primary: reward, shots: 0, texts: [messages]}}
"""
SAMPLES = 3


class TasksetTask(SuiteTask):
    """A task whose documents hold whole conversations."""

    def requests(self, doc: Mapping[str, Any], doc_id: int, *, chat: bool) -> list[Request]:
        """Return one request: the messages as they are, or their texts joined for a model without a chat template."""
        (built,) = super().requests(doc, doc_id, chat=False)
        turns = json.loads(doc["messages"])
        from dataclasses import replace

        messages = tuple((turn["role"], turn["content"]) for turn in turns)
        if not chat:
            return [replace(built, text="\n\n".join(content for _, content in messages))]
        request = replace(built, text=None, messages=messages)
        return [request if self.system is None else with_system(request, self.system)]


def write(name: str, folder: Path, *, limit: int | None = None, tokens: int = 1024) -> tuple[str, int]:
    """Write a taskset as rows for training and as a task for evaluation; return the task's name and the rows' number.

    `folder` gets `rows.jsonl`, `NAME.yaml`, `sample.jsonl` and a mirror in `data`. Raises UsageError, DataError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    task = re.sub(r"\W+", "_", name.rsplit("/", 1)[-1].split("@", 1)[0]).strip("_").lower()
    if not task:
        raise UsageError(f"taskset {name!r}: not the name of a module")
    found = list(tasksets.rows(name, limit))
    if not found:
        raise UsageError(f"taskset {name}: holds no tasks")
    rows = [
        {"messages": list(one.messages), "verifier": "taskset", "ground_truth": {"taskset": name, "data": one.data}}
        for one in found
    ]
    documents = [
        {"taskset": name, "messages": _json(list(one.messages)), "data": _json(one.data)} for one in found
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "rows.jsonl", "".join(_json(row) + "\n" for row in rows))
    write_text(folder / "sample.jsonl", "".join(_json(one) + "\n" for one in documents[:SAMPLES]))
    write_text(folder / f"{task}.yaml", TASK.format(name=name, task=task, tokens=tokens))
    mirror = folder / "data/tasksets" / task / "default"
    mirror.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(documents), mirror / "test.parquet")
    return task, len(rows)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
