"""Write the parity examples anew: prompts that the reference renders, and scores that it gives to responses.

    pip install -e OLMES                      # a checkout of github.com/allenai/olmes, in an environment of its own
    python tests/support/regenerate_examples.py --reference OLMES --out PROTOCOL/examples [--task gsm8k …]
    OLMES_PROTOCOL_DIR=PROTOCOL pytest -m data

`--out` gets `prompts.jsonl` and `scores.jsonl` (for tasks of the OLMo 3 suites `olmo3_prompts.jsonl` and
`olmo3_scores.jsonl`), which the tests read, and `reference.json`, which names the commit. Where `--out` (or `--rows`)
holds examples already, their documents, responses and sources are kept and everything that the reference decides is
computed again. A task without rows gets its first `--documents` documents and a few responses written around the label.
Rows of tasks that `--task` does not name stay as they are.

Three kinds of scores are copied instead of computed: BigCodeBench's (a service runs the programs), those of judges, and
`tulu3_bbh_v0_*`, whose scores come from an older revision of the reference. `exec` and `also` are left out of new rows.

The reference runs the programs of code tasks without a sandbox: use a container without credentials.

This script has not been run against a real checkout. It was written from the public interface of `oe_eval`
(`TASK_CONFIGS`, `load_task`, `Task.build_all_requests`, `Task.make_metrics`, `Metric.compute_for_docs`) and is tested
with a small stand-in.

Exit status: 0 done, 1 a task failed (named, its rows stay), 2 wrong usage, such as a folder that is no checkout.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from example_files import Row, UsageError, alias_of, chosen_tasks, own_file, read_rows, replaced, write_rows

LATER = "olmo3_"
"""Tasks and files of the thinking regime, whose responses pass the reference's output processor first."""
COPIED = re.compile(r"tulu3_(bigcodebench|bbh_v0_|alpaca_eval|href|safety)|olmo3_alpaca_eval")
VARIANTS = (
    "{G}",
    "The answer is {G}.",
    "Therefore, the answer is ({G}).",
    "So the answer is {G}.",
    "–",
)
"""Responses to documents that have none; {G} is the reference's label."""


class TaskFailed(Exception):
    """The reference and this script do not agree about a task: one line, its rows stay as they are."""


@dataclass(frozen=True)
class Reference:
    """What is used of the reference."""

    configs: Mapping[str, Any]
    load: Callable[[dict[str, Any]], Any]
    process: Callable[[dict[str, Any]], dict[str, Any]]
    """Takes the reasoning out of a response."""
    commit: str


@dataclass
class Examples:
    """The rows of one pair of files."""

    prompts: list[Row] = field(default_factory=list)
    scores: list[Row] = field(default_factory=list)


# The reference -------------------------------------------------------------------------------------------------------


def find_reference(folder: Path) -> Reference:
    """Import the reference from a checkout. Raises UsageError where there is none, or where a package is missing."""
    if not (folder / "oe_eval/configs/tasks.py").is_file():
        raise UsageError(f"{folder} is no checkout of allenai/olmes (no oe_eval/configs/tasks.py): git clone it first")
    sys.path.insert(0, str(folder.resolve()))
    try:
        configs = importlib.import_module("oe_eval.configs.tasks").TASK_CONFIGS
        load = importlib.import_module("oe_eval.run_eval").load_task
        processors = importlib.import_module("oe_eval.models.output_processors").MODEL_OUTPUT_PROCESSORS
        process = processors["r1_style"]
    except (ImportError, AttributeError, KeyError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UsageError(f"{folder} cannot be imported ({what}): pip install -e {folder}") from error
    git = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return Reference(configs, load, process, git.stdout.strip() or "unknown")


def load_task(reference: Reference, alias: str) -> Any:
    """The reference's task of that alias, its requests built. Raises TaskFailed."""
    if alias not in reference.configs:
        raise TaskFailed(f"the reference has no task {alias!r}")
    config = copy.deepcopy(reference.configs[alias])
    config.setdefault("metadata", {})["alias"] = alias
    task = reference.load(config)
    task.download()
    task.set_model(None, {"model": None})
    task.build_all_requests()
    if not task._instances:
        raise TaskFailed("the reference builds no requests")
    return task


def documents(task: Any, own: Mapping[str, Any]) -> dict[int, list[Row]]:
    """Requests of each document, as dictionaries, by the document's row in the whole split."""
    groups: dict[int, list[Row]] = {}
    for instance in task._instances:
        raw = instance.to_dict()
        groups.setdefault(raw["doc_id"], []).append(raw)
    row = rows_of_split(task, own, len(groups))
    return {row[doc_id]: sorted(group, key=lambda raw: raw["idx"]) for doc_id, group in groups.items()}


def rows_of_split(task: Any, own: Mapping[str, Any], count: int) -> Sequence[int]:
    """The row of the whole split for each of the reference's documents. Raises TaskFailed where it cannot be told."""
    if where := own.get("where"):
        split = task.dataset[own["test_split"]]
        chosen = set(range(len(split)))
        for column, value in where.items():
            wanted = value if isinstance(value, list) else [value]
            chosen &= {row for row, found in enumerate(split[column]) if found in wanted}
        if len(chosen) != count:
            raise TaskFailed(f"the reference has {count} documents, {where} selects {len(chosen)} rows")
        return sorted(chosen)
    limit = task.task_config.get("limit")
    if limit is not None and not own.get("subset"):
        raise TaskFailed(f"the reference draws {limit} documents, so their rows cannot be told")
    return range(count)


# Prompts -------------------------------------------------------------------------------------------------------------


def prompts_of(head: Row, group: Sequence[Row]) -> Iterator[Row]:
    """The rows of `prompts.jsonl` for one document: one for a generation, one per choice for log-likelihoods."""
    generate = group[0]["request_type"] == "generate_until"
    for raw in group[:1] if generate else group:
        context = raw["request"]["context"]
        chat = isinstance(context, Mapping)
        prefix = context.get("assistant_prefix") or "" if chat else ""
        said: Row = {"messages": context["messages"]} if chat else {"text": context}
        yield head | {
            "kind": "generate" if generate else "loglikelihood", **said, "prefix": prefix,
            "continuation": None if generate else _continuation(raw["request"]["continuation"], chat and not prefix),
            **_settings(raw["request"] if generate else None, len(group)), "reference": raw.get("label"),
        }  # fmt: skip


def _continuation(text: str, strip: bool) -> str:
    """The reference strips a choice's leading space where a chat turn has no prefix."""
    return text.lstrip() if strip else text


def _settings(request: Mapping[str, Any] | None, samples: int) -> Row:
    if request is None:
        return dict.fromkeys(("stop", "max_tokens", "temperature", "top_p", "samples"))
    given = request.get("generation_kwargs") or {}
    temperature = float(given.get("temperature") or 0.0)
    return {
        "stop": list(request.get("stop_sequences") or []),
        "max_tokens": given.get("max_gen_toks"),
        "temperature": temperature if given.get("do_sample", temperature > 0) else 0.0,
        "top_p": given.get("top_p"),
        "samples": samples,
    }


# Scores --------------------------------------------------------------------------------------------------------------


def score(reference: Reference, metrics: Sequence[Any], row: Row, group: Sequence[Row], names: Sequence[str]) -> Row:
    """The row of `scores.jsonl` with what the reference says of its response. Raises TaskFailed."""
    outputs = list(_outputs(reference, row))
    if len(outputs) > len(group):
        raise TaskFailed(f"document {row['doc_id']}: {len(outputs)} responses, the reference asks {len(group)} times")
    values: Row = {}
    answers: Row = {}
    for metric in metrics:
        results = [copy.deepcopy(raw) | {"model_resps": dict(out)} for raw, out in zip(group, outputs, strict=False)]
        metric.compute_for_docs(results)
        (found,) = metric._scores_for_docs
        values |= found["metrics"]
        answers |= found["model_output"][0]
    expected = {name: _number(values.get(name)) for name in names if _asked(name, len(outputs))}
    if "expected" not in row:  # a new row: what our task measures and the reference reports
        expected = {name: value for name, value in expected.items() if value is not None}
    missing = sorted(name for name, value in expected.items() if value is None)
    if missing or not expected:
        raise TaskFailed(f"document {row['doc_id']}: the reference has no {', '.join(missing or names)}")
    kept = {key: row[key] for key in ("olmes_alias", "task", "doc_id", "response", "responses", "loglikelihoods")
            if key in row}  # fmt: skip
    return kept | {"expected": expected, "source": row["source"]} | _extracted(answers)


def _outputs(reference: Reference, row: Row) -> Iterator[Row]:
    """A model's output for each response of the row, in the reference's form."""
    if "loglikelihoods" in row:
        for value in row["loglikelihoods"]:
            yield {"sum_logits": value, "num_tokens": 1, "num_tokens_all": 1, "is_greedy": False}
        return
    thinks = row["task"].startswith(LATER) and "cruxeval" not in row["task"]
    for text in row.get("responses") or [row["response"]]:
        made = {"continuation": text, "num_tokens": len(text.split())}
        yield reference.process(made) if thinks else made


def _asked(name: str, count: int) -> bool:
    """pass@k of fewer than k samples means nothing."""
    k = re.fullmatch(r"pass_at_(\d+)", name)
    return k is None or int(k[1]) <= count


def _number(value: Any) -> float | None:
    """A score as a fraction; the reference has lists of verdicts for instructions."""
    if isinstance(value, list):
        return sum(map(float, value)) / len(value) if value else None
    return float(value) if isinstance(value, (bool, int, float)) else None


def _extracted(answers: Mapping[str, Any]) -> Row:
    out: Row = {}
    answer = answers.get("model_answer_flex", answers.get("model_answer"))
    answer = answer[0] if isinstance(answer, list) and answer else answer
    if isinstance(answer, str):
        out["extracted"] = answer
    if "answer_format_correct" in answers:
        out["answer_format_correct"] = answers["answer_format_correct"]
    return out


def variants(head: Row, group: Sequence[Row]) -> Iterator[Row]:
    """Rows with responses of our own writing: around the label, or log-likelihoods with each choice ahead once."""
    if group[0]["request_type"] == "loglikelihood":
        for ahead in range(len(group)):
            values = [-1.0 if choice == ahead else -2.0 - choice / 8 for choice in range(len(group))]
            yield head | {"loglikelihoods": values, "source": "invented"}
        return
    label = group[0].get("label")
    for form in VARIANTS if isinstance(label, str) else VARIANTS[-1:]:
        yield head | {"response": form.replace("{G}", str(label)), "source": f"variant: {form}"}


# The whole -----------------------------------------------------------------------------------------------------------


def regenerate(reference: Reference, name: str, before: Examples, count: int) -> Examples:
    """The rows of one task, made anew from those before. Raises TaskFailed, and what the reference raises."""
    old = [*before.prompts, *before.scores]
    aliases = dict.fromkeys(row["olmes_alias"] for row in old) or {alias_of(name): None}
    made = Examples()
    own = own_file(name)
    for alias in aliases:
        task = load_task(reference, str(alias))
        groups = documents(task, own)
        head = {"olmes_alias": alias, "task": name}
        asked = [row["doc_id"] for row in before.prompts if row["olmes_alias"] == alias]
        for doc_id in dict.fromkeys(asked) or list(groups)[: 0 if old else count]:
            made.prompts += prompts_of(head | {"doc_id": doc_id}, _group(groups, doc_id))
        rows = [row for row in before.scores if row["olmes_alias"] == alias]
        if COPIED.match(name):
            made.scores += rows
            continue
        metrics = task.make_metrics() or []
        metrics = task._metrics or metrics
        declared = [entry["metric"] for entry in own.get("metric_list", [])]
        for row in rows or ([] if old else _new_rows(head, groups, count)):
            names = list(row.get("expected") or declared)
            made.scores.append(score(reference, metrics, row, _group(groups, row["doc_id"]), names))
    return made


def _new_rows(head: Row, groups: Mapping[int, Sequence[Row]], count: int) -> Iterator[Row]:
    for doc_id in list(groups)[:count]:
        yield from variants(head | {"doc_id": doc_id}, groups[doc_id])


def _group(groups: Mapping[int, list[Row]], doc_id: int) -> list[Row]:
    if doc_id not in groups:
        raise TaskFailed(f"the reference has no document {doc_id}")
    return groups[doc_id]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(prog="regenerate_examples", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--reference", type=Path, required=True, metavar="DIR", help="a checkout of allenai/olmes")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the JSON lines files")
    parser.add_argument("--rows", type=Path, metavar="DIR", help="examples whose documents are taken; default: --out")
    parser.add_argument("--task", action="append", default=[], metavar="T", help="a task or a group; repeatable")
    parser.add_argument("--documents", type=int, default=3, metavar="N", help="documents of a task without rows")
    asked = parser.parse_args(arguments)
    try:
        return _run(asked)
    except UsageError as error:
        print(f"regenerate_examples: {error}", file=sys.stderr)
        return 2


def _run(asked: argparse.Namespace) -> int:
    reference = find_reference(asked.reference)
    folder = asked.rows or asked.out
    files = ("", LATER)
    before = {part: Examples(read_rows(folder / f"{part}prompts.jsonl"), read_rows(folder / f"{part}scores.jsonl"))
              for part in files}  # fmt: skip
    by_task: dict[str, Examples] = {}
    for examples in before.values():
        for row in examples.prompts:
            by_task.setdefault(row["task"], Examples()).prompts.append(row)
        for row in examples.scores:
            by_task.setdefault(row["task"], Examples()).scores.append(row)
    made: dict[str, Examples] = {}
    failed = 0
    for name in chosen_tasks(asked.task, by_task):
        try:
            made[name] = regenerate(reference, name, by_task.get(name, Examples()), asked.documents)
        except Exception as error:  # whatever the reference raises about one task must not lose the others
            failed += 1
            what = str(error) if isinstance(error, TaskFailed) else f"{type(error).__name__}: {error}"
            print(f"regenerate_examples: {name}: {' '.join(what.split())}", file=sys.stderr)
    asked.out.mkdir(parents=True, exist_ok=True)
    for part, old in before.items():
        mine = {name: rows for name, rows in made.items() if name.startswith(LATER) == (part == LATER)}
        if mine or old.prompts or old.scores:
            prompts = replaced(old.prompts, {name: rows.prompts for name, rows in mine.items()})
            scores = replaced(old.scores, {name: rows.scores for name, rows in mine.items()})
            write_rows(asked.out / f"{part}prompts.jsonl", prompts)
            write_rows(asked.out / f"{part}scores.jsonl", scores)
    about = {"commit": reference.commit, "tasks": sorted(made)}
    (asked.out / "reference.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(f"{sum(len(rows.prompts) for rows in made.values())} prompts and "
          f"{sum(len(rows.scores) for rows in made.values())} scores of {len(made)} tasks")  # fmt: skip
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
