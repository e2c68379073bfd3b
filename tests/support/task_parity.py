"""The tasks that we ship, loaded by name, and their comparison with what the reference rendered and scored."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT

from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task
from olmes_suite.tasks.task import ROW, SuiteTask

TASKS = ROOT / "tasks"
FILES = {file.stem: file for file in sorted(TASKS.glob("*/tulu3_*.yaml"))}
LATER_FILES = {file.stem: file for file in sorted(TASKS.glob("*/olmo3_*.yaml"))}
LEAVES = {name: file for name, file in FILES.items() if "\ngroup:" not in file.read_text(encoding="utf-8")}
LATER_LEAVES = {name: file for name, file in LATER_FILES.items() if "\ngroup:" not in file.read_text(encoding="utf-8")}
SAMPLE = DataSource((), sample=True)


def leaves(folder: str) -> list[str]:
    """The names of a folder's tasks that have documents of their own, groups left out."""
    return [name for name, file in LEAVES.items() if file.parent.name == folder]


@functools.lru_cache(maxsize=512)
def task(name: str, source: DataSource = SAMPLE) -> SuiteTask:
    """A task, loaded once; its documents are the sample's unless another source is given."""
    return load_task(LEAVES.get(name) or LATER_LEAVES[name], source)


def sample_docs(name: str) -> list[dict[str, Any]]:
    """The documents that ship with a task."""
    return [dict(doc) for doc in task(name).eval_docs]


def scores(name: str, doc: dict[str, Any], response: Any) -> dict[str, float | None]:
    """The scores of a response to a document of the task."""
    return dict(task(name).scorer.one(doc, response).scores)


def read(name: str, response: str, **doc: Any) -> tuple[float | None, str | None]:
    """Exact match and extracted answer of a response to a document of the task."""
    scored = task(name).scorer.one(doc, response)
    return scored.scores["exact_match"], scored.extracted


def mirror(data_dir: Path, protocol_dir: Path) -> DataSource:
    """The real data, and the rows of data sets that the mirror lacks, which lie beside the reference's examples."""
    return DataSource((Path(data_dir), Path(protocol_dir) / "examples" / "data"))


def examples(protocol_dir: Path, file: str, pattern: str) -> Iterator[dict[str, Any]]:
    """The rows of a file of the reference's examples whose task matches the pattern."""
    with (protocol_dir / "examples" / file).open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if re.fullmatch(pattern, row["task"]):
                yield row


@functools.lru_cache(maxsize=512)
def _positions(name: str, source: DataSource) -> dict[int, int]:
    docs = task(name, source).eval_docs
    rows = docs[ROW] if ROW in docs.column_names else range(len(docs))
    return {row: position for position, row in enumerate(rows)}


def document(name: str, row: int, source: DataSource) -> dict[str, Any]:
    """The document of a task that was this row of the whole split."""
    return dict(task(name, source).eval_docs[_positions(name, source)[row]])


def _file(pattern: str, kind: str) -> str:
    return f"olmo3_{kind}.jsonl" if pattern.startswith("olmo3") else f"{kind}.jsonl"


def without_thought(text: str) -> str:
    """What the reference scores of a response, by its three patterns (`extract_think_answer`)."""
    text = re.sub("(?ms).*</think>", "", text)
    text = re.sub(r"(?ms)^\s*<answer>\s*", "", text)
    return re.sub(r"(?ms)</answer>\s*$", "", text)


def assert_prompts_equal(pattern: str, least: int, data_dir: Path, protocol_dir: Path) -> None:
    """Every request of the tasks that match is the reference's, in all that it asks for; there are at least so many."""
    source, checked = mirror(data_dir, protocol_dir), 0
    seen: dict[tuple[str, int], int] = {}
    for row in examples(protocol_dir, _file(pattern, "prompts"), pattern):
        key = (row["task"], row["doc_id"])
        index = seen[key] = seen.get(key, -1) + 1
        doc = document(*key, source)
        request = task(row["task"], source).requests(doc, row["doc_id"], chat=True)[index]
        generate = request.kind == "generate"
        ours = {
            "kind": request.kind,
            "messages": request.chat if request.messages is not None else None,
            "text": request.text,
            "prefix": request.prefix,
            "continuation": request.continuation,
            "stop": list(request.stop) if generate else None,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "samples": request.samples if generate else None,
            "reference": task(row["task"], source).doc_to_target(doc),
        }
        assert ours == {field: row.get(field) for field in ours}, key
        checked += 1
    assert checked >= least


def assert_scores_equal(pattern: str, least: int, data_dir: Path, protocol_dir: Path, rel: float = 0.0) -> None:
    """Every score and extracted answer of a recorded response is the reference's; there are at least so many."""
    source, checked, wrong = mirror(data_dir, protocol_dir), 0, []
    for row in examples(protocol_dir, "scores.jsonl", pattern):
        response = row.get("loglikelihoods", row.get("response"))
        found = task(row["task"], source).scorer.one(document(row["task"], row["doc_id"], source), response)
        got = {metric: found.scores.get(metric) for metric in row["expected"]}
        same = got == (pytest.approx(row["expected"], rel=rel, abs=0) if rel else row["expected"])
        if not same or row.get("extracted") not in (None, found.extracted):
            wrong.append((row["task"], row["doc_id"], row["source"], found, row["expected"], row.get("extracted")))
        checked += 1
    assert not wrong, wrong[:3]
    assert checked >= least


def assert_later_scores_equal(pattern: str, least: int, data_dir: Path, protocol_dir: Path) -> None:
    """The same for tasks of OLMo 3: without the thought, and with several samples of a document."""
    source, checked, wrong = mirror(data_dir, protocol_dir), 0, []
    for row in examples(protocol_dir, _file(pattern, "scores"), pattern):
        made = task(row["task"], source)
        responses = row.get("responses") or [row["response"]]
        if made.chat:  # CRUXEval is plain text, and the reference leaves its responses as they are
            responses = [without_thought(response) for response in responses]
        found, _ = made.scorer.document(document(row["task"], row["doc_id"], source), responses)
        got = {metric: found.scores.get(metric) for metric in row["expected"]}
        if got != pytest.approx(row["expected"]) or row.get("extracted") not in (None, found.extracted):
            wrong.append((row["task"], row["doc_id"], row["source"], found, row["expected"], row.get("extracted")))
        checked += 1
    assert not wrong, wrong[:3]
    assert checked >= least


def assert_golds_accepted(folder: str, data_dir: Path, protocol_dir: Path) -> None:
    """Over all documents, a gold answer scores 1, less the recorded ones, and no corrupted answer scores at all."""
    source = mirror(data_dir, protocol_dir)
    recorded = json.loads((TASKS / folder / "rejected_golds.json").read_text(encoding="utf-8"))
    of = dict.fromkeys(recorded, 0)
    rejected: dict[str, dict[str, int]] = {metric: {} for metric in recorded}
    for leaf in leaves(folder):
        made = task(leaf, source)
        for doc in made.eval_docs:
            accepted = made.scorer.one(doc, made.keys.gold(doc)).scores
            refused = made.scorer.one(doc, made.keys.corrupt(doc)).scores
            assert max(value for value in refused.values() if value is not None) < 1e-6, (leaf, doc)
            for metric in recorded.keys() & accepted.keys():
                of[metric] += 1
                if accepted[metric] != 1:
                    rejected[metric][leaf] = rejected[metric].get(leaf, 0) + 1
    assert of == {metric: entry["of"] for metric, entry in recorded.items()}
    assert {metric: sum(counts.values()) for metric, counts in rejected.items()} == {
        metric: entry["count"] for metric, entry in recorded.items()
    }
    assert all(entry.get("tasks", rejected[metric]) == rejected[metric] for metric, entry in recorded.items())


def assert_sample_golds(*names: str) -> None:
    """The gold answers of the documents that ship with these tasks score 1 on every metric, corrupted ones 0."""
    for name in names:
        made = task(name)
        assert len(made.eval_docs) > 0, name
        for doc in sample_docs(name):
            assert set(scores(name, doc, made.keys.gold(doc)).values()) == {1.0}, name
            assert set(scores(name, doc, made.keys.corrupt(doc)).values()) == {0.0}, name
            assert all(text in doc for text in made.config.metadata["texts"]), name


def assert_group(name: str, pattern: str, members: int, aggregate: str) -> None:
    """A group holds the leaves that match the pattern, so many, and is scored by their mean of this kind."""
    from lm_eval.tasks._yaml_loader import load_yaml

    group = load_yaml(FILES[name])
    assert set(group["task"]) == {leaf for leaf in LEAVES if re.fullmatch(pattern, leaf)}
    assert len(group["task"]) == members
    assert group["metadata"]["aggregate"] == aggregate
    (metric,) = group["aggregate_metric_list"]
    assert metric["metric"] == group["metadata"]["primary"]
    assert metric["weight_by_size"] is (aggregate == "micro")
