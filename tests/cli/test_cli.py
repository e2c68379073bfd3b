"""The command line: starts light, and every mistake is one line with exit status 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import as_json, environment, olmes, olmes_here, one_line_error, write_gsm8k

from olmes_suite.cli.main import run as run_command
from olmes_suite.models.cache.store import Store

HEAVY = (
    "torch",
    "transformers",
    "lm_eval",
    "datasets",
    "pandas",
    "scipy",
    "numpy",
    "pyarrow",
    "rich",
    "trl",
    "vllm",
    "yaml",
)


@pytest.mark.parametrize("arguments", [["--help"], ["tasks"], ["tasks", "--json"], ["eval", "--help"], ["--version"]])
def test_nothing_heavy_is_imported(arguments: list[str], tmp_path: Path) -> None:
    program = (
        f"import sys; from olmes_suite.cli.main import run; run({arguments!r}); "
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment(tmp_path))
    assert done.stderr.strip().splitlines()[-1] == "[]"
    assert done.stdout


def test_pydantic_is_imported_when_a_file_is_checked(tmp_path: Path) -> None:
    """Our modules leave it to the first file. typer itself imports it for a command's options, in some versions."""
    (tmp_path / "gate.yaml").write_text("margin: 2\n")
    program = (
        "import sys; from olmes_suite.cli.main import run; run(['--help'])\n"
        "import olmes_suite.tasks.index, olmes_suite.tasks.suites, olmes_suite.yaml_files\n"
        "import train_plugins.config.recipe\n"
        "from olmes_suite.comparison.gate_rules import read_rules; from pathlib import Path\n"
        "found = [m for m in ('pydantic', 'pydantic_core', 'yaml') if m in sys.modules]\n"
        f"read_rules(Path({str(tmp_path / 'gate.yaml')!r}))\n"
        "print(found, 'pydantic' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment(tmp_path))
    assert done.stderr.strip().splitlines()[-1] == "[] True"


def test_only_what_is_built_is_listed(tmp_path: Path) -> None:
    from olmes_suite.cli.main import COMMANDS

    listed = olmes_here("--help", tmp=tmp_path).stdout
    for command in COMMANDS:
        assert f"\n  {command} " in listed
        assert olmes_here(command, "--help", tmp=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["eval", "--backend", "mock"], "--suite NAME or --task NAME"),
        (["eval", "--backend", "mock", "--task", "gsm8"], "did you mean 'gsm8k'"),
        pytest.param(
            ["eval", "--backend", "mock", "--task", "zebralogic"],
            "did you mean 'olmo3_zebralogic'",
            marks=pytest.mark.long,
        ),
        (["eval", "--backend", "mock", "--suite", "unsen"], "did you mean 'unseen'"),
        (["eval", "--backend", "moc", "--task", "gsm8k", "--data", "sample"], "did you mean 'mock'"),
        (
            ["eval", "--backend", "mock", "--task", "gsm8k", "--limit", "0"],
            "--limit must be a whole number of at least 1",
        ),
        (["eval", "--backend", "mock", "--task", "gsm8k", "--limit", "x"], "--limit"),
        (["eval", "--backend", "mock", "--task", "gsm8k", "--data", "all"], "--data takes only `sample`"),
        (["eval", "--backend", "mock", "--task", "gsm8k", "--data-dir", "/nowhere"], "no such folder"),
        (["eval", "--task", "gsm8k"], "--model"),
        (["eval", "--model", "/nowhere", "--task", "gsm8k"], "/nowhere"),
        (["evaluate"], "did you mean 'eval'"),
        (["eval", "--what"], "--what"),
        (["eval", "gsm8k"], "a task with --task"),
        pytest.param(["tasks", "show", "gsmk"], "did you mean 'gsm8k'", marks=pytest.mark.long),
        (["tasks", "check", "gsm8k", "--limit", "0"], "--limit must be at least 1"),
        (
            ["prompts", "--task", "gsm8k", "--data", "sample", "--doc-ids", "a"],
            "--doc-ids takes comma-separated integers",
        ),
        (["prompts", "--task", "gsm8k", "--data", "sample", "--doc-ids", "99"], "no document with doc_id 99"),
        (["score"], "give either RUN, or --task and --responses"),
        (["score", "/nowhere"], "no run '/nowhere'"),
        (["score", "--task", "gsm8k", "--responses", "/nowhere", "--data", "sample"], "cannot be read"),
        (["data", "verify"], "--data-dir"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    if arguments[0] == "eval":
        arguments = [*arguments, "--runs", str(tmp_path / "runs")]
    assert said in one_line_error(olmes_here(*arguments, tmp=tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("suite: x\n", "the key 'tasks' is missing"),
        ("tasks: []", "line 1: tasks: at least one is needed"),
        ("tasks: gsm8k", "tasks: expected a list, not 'gsm8k'"),
        ("tasks: [", "suite file"),
        ("tasks: [{taks: gsm8k}]", "line 1: tasks[0]: unknown key 'taks', did you mean 'task'"),
        ("tasks:\n- gsm8k\n- 5", "line 3: tasks[1]: expected text, not 5"),
        ("tasks: [gsm8k]\nunsen: true", "line 2: unknown key 'unsen', did you mean 'unseen'"),
        ("tasks: [{task: gsm8k, skil: math}]", "did you mean 'skill'"),
        ("tasks: [{task: gsm8k, aggregate: median}]", "aggregate: 'median' is none of mean, macro, micro, stratified"),
        ("tasks: [mine.yaml]", "contains itself"),
        pytest.param("tasks: [gsm8kk]", "did you mean 'gsm8k'", marks=pytest.mark.long),
        ("tasks: !!python/object/apply:os.system ['true']", "suite file"),
    ],
)
def test_suite_files_are_untrusted(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert said in one_line_error(
        olmes_here(
            "eval", "--backend", "mock", "--suite", tmp_path / "mine.yaml", "--runs", tmp_path / "runs", tmp=tmp_path
        )
    )


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"question": "q"}], "column 'answer' is missing"),
        ([{"question": "q", "answer": 3}], "column 'answer' is int64, expected string"),
        ([], "no rows"),
    ],
)
def test_malformed_data_is_one_line(rows: list[dict[str, object]], said: str, tmp_path: Path) -> None:
    path = write_gsm8k(tmp_path / "m") / "openai/gsm8k/main/test.parquet"
    schema = None if rows else pa.schema([("question", pa.string()), ("answer", pa.string())])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    assert said in one_line_error(
        olmes_here(
            "eval",
            "--backend",
            "mock",
            "--task",
            "gsm8k",
            "--data-dir",
            tmp_path / "m",
            "--runs",
            tmp_path / "runs",
            tmp=tmp_path,
        )
    )


def test_a_broken_parquet_file_is_one_line(tmp_path: Path) -> None:
    path = write_gsm8k(tmp_path / "m") / "openai/gsm8k/main/test.parquet"
    path.write_bytes(path.read_bytes()[:100])
    assert "cannot be read as parquet" in one_line_error(
        olmes_here("prompts", "--task", "gsm8k", "--data-dir", tmp_path / "m", tmp=tmp_path)
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"doc_id": 99, "responses": ["1"]}', "no document with doc_id 99"),
        ('{"doc_id": 0, "responses": ["1"]}\n{"doc_id": 0, "responses": ["1"]}', "is given twice"),
        ('{"doc_id": 0, "responses": "1"}', "list of at least one string"),
        ('{"doc_id": "0", "responses": ["1"]}', "integer doc_id"),
        ('{"doc_id": 0, "responses": []}', "list of at least one string"),
        ("nonsense", "line 1: not JSON"),
        ("", "has no responses"),
    ],
)
def test_bad_responses_files_are_one_line(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(line + "\n")
    assert said in one_line_error(
        olmes_here("score", "--task", "gsm8k", "--responses", tmp_path / "r.jsonl", "--data", "sample", tmp=tmp_path)
    )


def test_score_prints_what_the_contract_says(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(
        '{"doc_id": 0, "responses": ["The answer is 7", "8"]}\n{"doc_id": 2, "responses": ["none"]}\n'
    )
    done = as_json(
        olmes_here(
            "score",
            "--task",
            "gsm8k",
            "--responses",
            tmp_path / "r.jsonl",
            "--data",
            "sample",
            "--json",
            "--instances",
            tmp_path / "out.jsonl",
            tmp=tmp_path,
        )
    )
    assert (
        done["task"] == "tulu3_gsm8k"
        and done["primary"] == "exact_match"
        and (done["n"], done["left_out"], done["errors"]) == (2, 0, 0)
    )
    assert done["metrics"]["exact_match"]["value"] == 0.5 and len(done["metrics"]["exact_match"]["ci95"]) == 2
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert first == {
        "task": "tulu3_gsm8k",
        "doc_id": 0,
        "scores": {"exact_match": 1.0},
        "samples": [
            {"scores": {"exact_match": 1.0}, "extracted": "7"},
            {"scores": {"exact_match": 0.0}, "extracted": "8"},
        ],
        "flags": [],
    }
    assert second["scores"] == {"exact_match": 0.0} and second["flags"] == ["extraction_failed"]


def test_prompts_have_the_fields_of_the_contract(tmp_path: Path) -> None:
    done = olmes_here("prompts", "--task", "gsm8k", "--data", "sample", "--doc-ids", "1", tmp=tmp_path)
    line = json.loads(done.stdout)
    assert set(line) == {
        "task",
        "doc_id",
        "kind",
        "messages",
        "prefix",
        "continuation",
        "stop",
        "max_tokens",
        "temperature",
        "top_p",
        "samples",
        "reference",
    }
    assert line["reference"] == "24" and len(line["messages"]) == 17 and line["prefix"] == "Answer:"


def test_data_pull_copies_from_a_mirror_and_verify_reads_it(tmp_path: Path) -> None:
    mirror = write_gsm8k(tmp_path / "a")
    done = as_json(
        olmes_here(
            "data", "pull", "--task", "gsm8k", "--data-dir", mirror, "--out", tmp_path / "b", "--json", tmp=tmp_path
        )
    )
    assert done == [{"place": "openai/gsm8k/main/test.parquet", "state": "pulled", "detail": "40 rows"}]
    assert pq.read_table(tmp_path / "b/openai/gsm8k/main/test.parquet").num_rows == 40
    found = olmes_here("data", "verify", "--task", "gsm8k", "--data-dir", tmp_path / "b", "--json", tmp=tmp_path)
    assert found.returncode == 1 and json.loads(found.stdout)[0]["state"] == "differs"


@pytest.mark.long
def test_a_users_own_lm_eval_task(tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text('{"q": "1+1", "a": "2"}\n{"q": "2+2", "a": "4"}\n')
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/sums.yaml").write_text(
        f"task: sums\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/docs.jsonl}}}}\n"
        "test_split: test\n"
        "output_type: generate_until\ndoc_to_text: '{{q}}='\ndoc_to_target: '{{a}}'\n"
        "generation_kwargs: {until: ['x'], max_gen_toks: 4, do_sample: false}\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\nmetadata: {version: 1.0}\n"
    )
    done = as_json(
        olmes(
            "eval",
            "--backend",
            "floor",
            "--task",
            "sums",
            "--include-path",
            tmp_path / "mine",
            "--runs",
            tmp_path / "runs",
            "--json",
            tmp=tmp_path,
            HF_HOME=str(tmp_path),
        )
    )
    assert done["tasks"]["sums"]["n"] == 2 and done["tasks"]["sums"]["metrics"]["exact_match"]["value"] == 0.0


OWN_TASK = """
from olmes_suite.records import Scored
from olmes_suite.scoring import scorer


@scorer()
def score(doc, response):
    return Scored({"exact_match": float(response == doc["a"])})


def gold(doc):
    return doc["a"]


def corrupt(doc):
    return "x" if doc["q"] == "1+1" else CORRUPT(doc)
"""


def test_a_users_own_task_is_checked(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "sample.jsonl").write_text('{"q": "1+1", "a": "2"}\n{"q": "2+2", "a": "4"}\n')
    (folder / "sums.yaml").write_text(
        "task: sums\nclass: !function olmes_suite.tasks.task.SuiteTask\ndataset_path: mine/sums\nhub: false\n"
        "columns: {q: string, a: string}\ntest_split: test\noutput_type: generate_until\ndoc_to_text: '{{q}}='\n"
        "doc_to_target: ''\ngeneration_kwargs: {until: [], max_gen_toks: 4, temperature: 0.0, do_sample: false}\n"
        "process_results: !function task.score\ngold: !function task.gold\ncorrupt: !function task.corrupt\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
        "metadata: {version: 1.0, primary: exact_match, shots: 0, texts: [q]}\n"
    )
    for corrupt, code, said in (("gold", 1, "1 corrupted golds score above 0 (doc_id 1"), ("repr", 0, "ok   sums")):
        size = "#" * (1 + code)  # of another length: within one second Python would take the compiled file for current
        (folder / "task.py").write_text(f"{OWN_TASK.replace('CORRUPT', corrupt)}\n{size}\n")
        done = olmes_here("tasks", "check", "sums", "--include-path", folder, tmp=tmp_path)
        assert done.returncode == code and said in done.stdout, done.stdout + done.stderr
    all_of_them = olmes_here("tasks", "check", "--include-path", folder, tmp=tmp_path)
    assert all_of_them.returncode == 0 and "ok   sums" in all_of_them.stdout, all_of_them.stderr
    assert "no such folder" in one_line_error(olmes_here("tasks", "check", "a", "--include-path", "gone", tmp=tmp_path))


def test_a_users_own_task_without_a_gold_is_scored_and_said_not_to_be_checked(cli, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "d.jsonl").write_text('{"q": "1+1", "a": "2"}\n{"q": "2+2", "a": "4"}\n')
    (folder / "plain.yaml").write_text(
        f"task: plain\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder}/d.jsonl}}}}\n"
        "test_split: test\noutput_type: generate_until\ndoc_to_text: '{{q}}'\ndoc_to_target: '{{a}}'\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    status, out, _ = cli("tasks", "check", "plain", "--include-path", folder)
    assert status == 0 and "not checked: its file names no `gold`" in out and "FAIL" not in out
    (tmp_path / "r.jsonl").write_text('{"doc_id": 0, "responses": ["2"]}\n{"doc_id": 1, "responses": ["5"]}\n')
    given = ("--task", "plain", "--responses", tmp_path / "r.jsonl")
    status, out, err = cli("score", *given, "--include-path", folder, "--json")
    assert status == 0, err
    assert json.loads(out)["metrics"]["exact_match"]["value"] == 0.5
    assert "no such folder" in cli("score", *given, "--include-path", tmp_path / "gone")[2]


def test_ctrl_c_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def pressed(self: object) -> None:
        raise KeyboardInterrupt

    Store(tmp_path).close()
    monkeypatch.setattr(Store, "holdings", pressed)
    assert run_command(["cache", "show", str(tmp_path)]) == 130
    assert capsys.readouterr().err.strip() == "olmes: interrupted"
