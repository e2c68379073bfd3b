"""The script that writes the parity examples anew, run against a small stand-in for the reference."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long
SCRIPT = Path(__file__).parent / "support/regenerate_examples.py"

CONFIGS = """
TASK_CONFIGS = {
    "gsm8k::tulu": {"task_name": "gsm8k", "use_chat_format": True},
    "drop::llama3": {"task_name": "drop"},
    "mmlu_astronomy:mc::tulu": {"task_name": "mmlu_astronomy:mc", "use_chat_format": True},
    "mmlu_pro_math:0shot_cot::tulu3": {"task_name": "mmlu_pro_math", "use_chat_format": True},
    "ifeval::tulu": {"task_name": "ifeval", "use_chat_format": True},
    "codex_humaneval::tulu": {"task_name": "codex_humaneval", "use_chat_format": True},
    "gsm8k::olmo3:adapt": {"task_name": "gsm8k", "use_chat_format": True},
    "truthfulqa::tulu": {"task_name": "raises"},
    "popqa::tulu": {"task_name": "gsm8k", "limit": 1},
}
"""

RUN_EVAL = '''
import copy

KWARGS = {"max_gen_toks": 512, "do_sample": False, "temperature": 0.0}


class Instance:
    def __init__(self, **fields):
        self.fields = fields

    def to_dict(self):
        return copy.deepcopy(self.fields)


class Split(dict):
    """Columns by name, as long as one of them."""

    def __len__(self):
        return len(next(iter(self.values())))


class Metric:
    """`process_one_doc` as in the reference: the results of one document give its values."""

    def __init__(self, process_one_doc, extract=None):
        self.process_one_doc, self.extract, self._scores_for_docs = process_one_doc, extract, []

    def compute_for_docs(self, results):
        for result in results:
            if self.extract:
                result["model_resps"]["model_answer"] = self.extract(result["model_resps"]["continuation"])
        assert len({result["doc_id"] for result in results}) == 1
        outputs = [result["model_resps"] for result in results]
        self._scores_for_docs = [
            {"doc_id": results[0]["doc_id"], "metrics": self.process_one_doc(results), "model_output": outputs}
        ]


def last_word(text):
    return text.strip().rstrip(".").split(" ")[-1]


class Task:
    def __init__(self, config):
        self.task_config, self.name = {"limit": None, **config}, config["task_name"]
        self._instances = self._metrics = None
        self.dataset = {"test": Split(category=["law", "math", "law", "math"])}

    def download(self):
        if self.name == "raises":
            raise OSError("the Hub\\nis away")

    def set_model(self, model, model_config):
        assert model is None

    def build_all_requests(self):
        documents = self._documents()
        limit = self.task_config["limit"]
        chat = self.task_config.get("use_chat_format")
        self._instances = []
        for doc_id, (text, label, count) in enumerate(documents[:limit]):
            for idx in range(count):
                context = text
                if chat:
                    prefix = {"assistant_prefix": "Answer:"} if self.name == "gsm8k" else {}
                    context = {"messages": [{"role": "user", "content": text}], **prefix}
                request = {"context": context}
                kind = "loglikelihood" if self.name.endswith(":mc") else "generate_until"
                if kind == "loglikelihood":
                    request["continuation"] = " " + "AB"[idx]
                elif self.name == "codex_humaneval":
                    sampled = {"max_gen_toks": 9, "do_sample": True, "temperature": 0.8, "top_p": 0.95}
                    request |= {"stop_sequences": [], "generation_kwargs": sampled}
                else:
                    request |= {"stop_sequences": ["Question:"], "generation_kwargs": dict(KWARGS)}
                self._instances.append(
                    Instance(request_type=kind, doc={"text": text}, request=request, idx=idx, task_name=self.name,
                             doc_id=doc_id, native_id=doc_id, label=label)
                )

    def _documents(self):
        if self.name.endswith(":mc"):
            return [("Which?", 1, 2), ("And?", 0, 2)]
        if self.name == "codex_humaneval":
            return [("def f():", None, 10)]
        if self.name == "ifeval":
            return [("Say", None, 1)]
        return [("one", "1", 1), ("two", "2", 1)]

    def make_metrics(self):
        def exact(results):
            return {"exact_match": float(results[0]["model_resps"]["model_answer"] == results[0]["label"]), "n": 3}

        def choice(results):
            values = [result["model_resps"]["sum_logits"] for result in results]
            return {"acc_raw": int(values.index(max(values)) == results[0]["label"]), "acc_norm": 0}

        def passed(results):
            right = sum("return" in result["model_resps"]["continuation"] for result in results)
            return {"pass_at_1": right / len(results), "pass_at_10": float(right > 0)}

        def followed(results):
            return {"prompt_level_strict_acc": False, "inst_level_strict_acc": [True, False],
                    "prompt_level_loose_acc": True, "inst_level_loose_acc": [True, True]}

        if self.name.endswith(":mc"):
            self._metrics = [Metric(choice)]
        elif self.name == "codex_humaneval":
            self._metrics = [Metric(passed)]
        elif self.name == "ifeval":
            self._metrics = [Metric(followed)]
        elif self.name == "drop":
            self._metrics = [Metric(lambda results: {"f1": 0.5})]
        else:
            self._metrics = [Metric(exact, last_word)]


def load_task(task_config, output_dir=None):
    return Task(task_config)
'''

PROCESSORS = """
MODEL_OUTPUT_PROCESSORS = {
    "r1_style": lambda res: {**res, "continuation": res["continuation"].split("</think>")[-1]}
}
"""


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """A package that has what the script uses of the reference."""
    folder = tmp_path / "olmes"
    files = {"configs/tasks.py": CONFIGS, "run_eval.py": RUN_EVAL, "models/output_processors.py": PROCESSORS}
    for name, text in files.items():
        path = folder / "oe_eval" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        (path.parent / "__init__.py").touch()
    return folder


def run(reference: Path, out: Path, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-B", str(SCRIPT), "--reference", str(reference), "--out", str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, *written: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")


def test_a_task_without_rows_gets_its_first_documents(reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "examples"
    status, said, _ = run(reference, out, "--task", "gsm8k", "--documents", "1")
    assert (status, said) == (0, "1 prompts and 5 scores of 1 tasks\n")
    assert rows(out / "prompts.jsonl") == [
        {
            "olmes_alias": "gsm8k::tulu", "task": "tulu3_gsm8k", "doc_id": 0, "kind": "generate",
            "messages": [{"role": "user", "content": "one"}], "prefix": "Answer:", "continuation": None,
            "stop": ["Question:"], "max_tokens": 512, "temperature": 0.0, "top_p": None, "samples": 1, "reference": "1",
        }
    ]  # fmt: skip
    scored = rows(out / "scores.jsonl")
    assert scored[1] == {
        "olmes_alias": "gsm8k::tulu", "task": "tulu3_gsm8k", "doc_id": 0, "response": "The answer is 1.",
        "expected": {"exact_match": 1.0}, "source": "variant: The answer is {G}.", "extracted": "1",
    }  # fmt: skip
    assert [row["expected"]["exact_match"] for row in scored] == [1.0, 1.0, 0.0, 1.0, 0.0]
    assert json.loads((out / "reference.json").read_text()) == {"commit": "unknown", "tasks": ["tulu3_gsm8k"]}
    assert not (out / "olmo3_prompts.jsonl").exists()


def test_plain_text_and_choices_and_samples(reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "examples"
    tasks = ("drop", "mmlu_mc_astronomy", "humaneval", "ifeval")
    status, _, errors = run(reference, out, *(word for task in tasks for word in ("--task", task)), "--documents", "1")
    assert (status, errors) == (0, "")
    prompts = rows(out / "prompts.jsonl")
    assert [(row["task"], row.get("text"), row["kind"]) for row in prompts] == [
        ("tulu3_drop", "one", "generate"),
        ("tulu3_mmlu_mc_astronomy", None, "loglikelihood"),
        ("tulu3_mmlu_mc_astronomy", None, "loglikelihood"),
        ("tulu3_humaneval", None, "generate"),
        ("tulu3_ifeval", None, "generate"),
    ]
    choices = prompts[1:3]
    assert [row["continuation"] for row in choices] == ["A", "B"]  # the reference strips the space without a prefix
    assert {row[key] for row in choices for key in ("stop", "max_tokens", "temperature", "top_p", "samples")} == {None}
    assert [prompts[3][key] for key in ("temperature", "top_p", "samples", "reference")] == [0.8, 0.95, 10, None]
    by_task: dict[str, list[dict[str, Any]]] = {}
    for row in rows(out / "scores.jsonl"):
        by_task.setdefault(row["task"], []).append(row)
    assert [row["expected"] for row in by_task["tulu3_mmlu_mc_astronomy"]] == [{"acc_raw": 0.0}, {"acc_raw": 1.0}]
    assert [row["expected"] for row in by_task["tulu3_humaneval"]] == [{"pass_at_1": 0.0}]
    assert by_task["tulu3_ifeval"][0]["expected"] == {
        "prompt_level_strict_acc": 0.0, "inst_level_strict_acc": 0.5, "prompt_level_loose_acc": 1.0,
        "inst_level_loose_acc": 1.0,
    }  # fmt: skip


def test_rows_before_keep_documents_and_responses(reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "examples"
    gsm8k = {"olmes_alias": "gsm8k::tulu", "task": "tulu3_gsm8k", "doc_id": 1}
    code = {"olmes_alias": "codex_humaneval::tulu", "task": "tulu3_humaneval", "doc_id": 0}
    other = {"olmes_alias": "drop::llama3", "task": "tulu3_drop", "doc_id": 0, "kind": "old"}
    copied = {"olmes_alias": "bigcodebench::tulu", "task": "tulu3_bigcodebench", "doc_id": 3, "response": "x"}
    write(out / "prompts.jsonl", gsm8k | {"kind": "old"}, other)
    write(
        out / "scores.jsonl",
        gsm8k | {"response": "2", "expected": {"exact_match": 0.0}, "source": "a model", "extracted": "wrong"},
        copied,
        code | {"responses": ["return"] + [""] * 9, "expected": {"pass_at_1": 0, "pass_at_10": 0}, "source": "ours"},
    )
    assert run(reference, out, "--task", "gsm8k", "--task", "humaneval")[0] == 0
    prompts, scores = rows(out / "prompts.jsonl"), rows(out / "scores.jsonl")
    assert [(row["task"], row["doc_id"], row["kind"]) for row in prompts] == [
        ("tulu3_gsm8k", 1, "generate"), ("tulu3_drop", 0, "old"),
    ]  # fmt: skip
    assert scores[0] == gsm8k | {
        "response": "2", "expected": {"exact_match": 1.0}, "source": "a model", "extracted": "2",
    }  # fmt: skip
    assert scores[1] == copied
    assert scores[2]["expected"] == {"pass_at_1": 0.1, "pass_at_10": 1.0}


def test_rows_are_those_of_the_whole_split(reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "examples"
    status, _, errors = run(reference, out, "--task", "mmlu_pro_math")
    assert (status, errors) == (0, "")
    assert [row["doc_id"] for row in rows(out / "prompts.jsonl")] == [1, 3]


def test_thoughts_are_taken_out_first(reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "examples"
    row = {"olmes_alias": "gsm8k::olmo3:adapt", "task": "olmo3_gsm8k", "doc_id": 0, "source": "ours"}
    write(out / "olmo3_scores.jsonl", row | {"response": "1</think>no", "expected": {"exact_match": 1.0}})
    write(out / "olmo3_prompts.jsonl")
    assert run(reference, out, "--task", "olmo3_gsm8k")[0] == 0
    assert rows(out / "olmo3_scores.jsonl")[0]["expected"] == {"exact_match": 0.0}
    assert rows(out / "olmo3_scores.jsonl")[0]["response"] == "1</think>no"
    assert not (out / "prompts.jsonl").exists()


def test_a_task_that_fails_keeps_its_rows_and_loses_no_other(reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "examples"
    kept = {"olmes_alias": "truthfulqa::tulu", "task": "tulu3_truthfulqa", "doc_id": 0, "kind": "old"}
    write(out / "prompts.jsonl", kept)
    status, said, errors = run(
        reference, out, "--task", "truthfulqa", "--task", "popqa", "--task", "math_algebra", "--task", "gsm8k"
    )
    assert status == 1
    assert errors.splitlines() == [
        "regenerate_examples: tulu3_truthfulqa: OSError: the Hub is away",
        "regenerate_examples: tulu3_popqa: the reference draws 1 documents, so their rows cannot be told",
        "regenerate_examples: tulu3_math_algebra: the reference has no task 'minerva_math_algebra::tulu'",
    ]
    assert [row["task"] for row in rows(out / "prompts.jsonl")] == [
        "tulu3_truthfulqa", "tulu3_gsm8k", "tulu3_gsm8k",
    ]  # fmt: skip
    assert said == "2 prompts and 10 scores of 1 tasks\n"


def test_a_missing_score_is_named(reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "examples"
    row = {"olmes_alias": "gsm8k::tulu", "task": "tulu3_gsm8k", "doc_id": 0, "source": "ours", "response": "1"}
    write(out / "scores.jsonl", row | {"expected": {"exact_match_flex": 1.0}})
    status, _, errors = run(reference, out, "--task", "gsm8k")
    assert (status, errors) == (
        1, "regenerate_examples: tulu3_gsm8k: document 0: the reference has no exact_match_flex\n"
    )  # fmt: skip


@pytest.mark.parametrize("made", ["absent", "empty", "incomplete", "broken"])
def test_a_folder_that_is_no_checkout_is_one_line(made: str, tmp_path: Path) -> None:
    folder, out = tmp_path / "olmes", tmp_path / "examples"
    if made != "absent":
        folder.mkdir()
    if made in ("incomplete", "broken"):
        (folder / "oe_eval/configs").mkdir(parents=True)
        text = CONFIGS if made == "incomplete" else "import a_package_that_is_not_here"
        (folder / "oe_eval/configs/tasks.py").write_text(text, encoding="utf-8")
    status, said, errors = run(folder, out)
    assert (status, said, errors.count("\n")) == (2, "", 1)
    assert str(folder) in errors
    assert ("git clone" in errors) == (made in ("absent", "empty"))
    assert ("pip install -e" in errors) == (made in ("incomplete", "broken"))
    assert not out.exists()


def test_wrong_usage_is_one_line(reference: Path, tmp_path: Path) -> None:
    status, _, errors = run(reference, tmp_path / "out", "--task", "no_such_task")
    assert (status, errors.count("\n")) == (2, 1)
    write(tmp_path / "out/prompts.jsonl")
    (tmp_path / "out/scores.jsonl").write_text("{", encoding="utf-8")
    status, _, errors = run(reference, tmp_path / "out", "--task", "gsm8k")
    assert (status, errors.count("\n")) == (2, 1)
    assert "scores.jsonl" in errors


def test_the_table_of_names_agrees_with_the_examples(protocol_dir: Path) -> None:
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        from example_files import alias_of
    finally:
        sys.path.remove(str(SCRIPT.parent))
    known = {(row["task"], row["olmes_alias"]) for row in rows(protocol_dir / "examples/prompts.jsonl")}
    assert len(known) > 200
    assert {(task, alias_of(task)) for task, _ in known} == known
