"""lm-eval tasks of other people: every output type scores as under `lm_eval`, on a model that knows the answers."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from olmes_suite.errors import UsageError
from olmes_suite.evaluation.evaluate import Finished, evaluate
from olmes_suite.evaluation.plan import Options
from olmes_suite.evaluation.rescore import score_responses
from olmes_suite.models.without_model.mock import MockBackend
from olmes_suite.records import Request, Response
from olmes_suite.tasks import catalog, index, own_data
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.external import is_mean
from olmes_suite.tasks.index import TaskEntry

ROWS = [
    {"q": "The sky is", "a": " blue", "choices": [" blue", " green"], "gold": 0},
    {"q": "Grass is", "a": " green", "choices": [" red", " green"], "gold": 1},
    {"q": "Snow is", "a": " white", "choices": [" white", " black"], "gold": 0},
]
KNOWN = {row["q"]: row["a"] for row in ROWS}


class Knows(MockBackend):
    """Answers the first rows right, the last one wrong; samples differ."""

    def run(
        self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]]
    ) -> Iterator[tuple[int, int, Response]]:
        for position, request in enumerate(requests):
            question = next(q for q in KNOWN if q in (request.text or str(request.messages)))
            answer = KNOWN[question] if question != "Snow is" else " black"
            for sample, _ in enumerate(seeds[position]):
                if request.kind == "loglikelihood":
                    right = request.continuation == answer
                    yield position, sample, Response(loglikelihood=-0.01 if right else -7.0, is_greedy=right)
                else:
                    text = answer if sample else " unsure"  # the first of several samples is wrong
                    yield position, sample, Response(text=text if request.samples > 1 else answer)


class Quiet:
    """A watcher that keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def start(self, plans) -> None: ...
    def advance(self, task, documents, tokens) -> None: ...
    def stop(self) -> None: ...


@pytest.fixture
def external_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for task files, beside the rows that they read."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(catalog, "include_paths", [tasks])
    known = dict(index.index())
    yield tmp_path
    index.index().clear()
    index.index().update(known)


def task(folder: Path, name: str, body: str) -> None:
    (folder / f"tasks/{name}.yaml").write_text(
        f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder}/rows.jsonl}}}}\n"
        f"test_split: test\ndoc_to_text: '{{{{q}}}}'\nmetadata: {{version: 1.0}}\n{body}"
    )


def ours(folder: Path, *names: str, watcher: Quiet | None = None) -> Finished:
    options = Options(model="m", backend="mock", task_names=names, source=DataSource(), runs=folder / "runs")
    return evaluate(options, lambda *_: Knows(), watcher or Quiet())


def theirs(folder: Path, name: str) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    logging.disable(logging.WARNING)
    manager = TaskManager(include_path=str(folder / "tasks"), include_defaults=False)
    found = simple_evaluate(SamplesUnderLmEval(), tasks=[name], task_manager=manager, bootstrap_iters=0)
    logging.disable(logging.NOTSET)
    assert found is not None
    return {key.split(",")[0]: value for key, value in found["results"][name].items()}


class SamplesUnderLmEval(Knows):
    """lm-eval repeats an instance for each sample; the backend must know which one it answers."""

    def generate_until(self, requests, disable_tqdm=False):
        texts = []
        seen: dict[str, int] = {}
        for instance in requests:
            text, number = str(instance.args[0]), seen.get(str(instance.args[0]), 0)
            seen[text] = number + 1
            question = next(q for q in KNOWN if q in text)
            answer = KNOWN[question] if question != "Snow is" else " black"
            texts.append(answer if number or instance.repeats == 1 else " unsure")
        return texts


CHOICES = "output_type: multiple_choice\ndoc_to_choice: choices\ndoc_to_target: gold\ntarget_delimiter: ''\n"
LOGLIKELIHOOD = "output_type: loglikelihood\ndoc_to_target: '{{a}}'\ntarget_delimiter: ''\n"
GENERATE = "output_type: generate_until\ndoc_to_target: '{{a}}'\ngeneration_kwargs: {until: ['\\n'], max_gen_toks: 8}\n"
MEAN = "aggregation: mean, higher_is_better: true"
GREEDY = f"metric_list: [{{metric: exact_match, {MEAN}}}, {{metric: acc, {MEAN}}}]\n"
FILTERS = "repeats: 3\nfilter_list: [{name: f, filter: [%s]}]\n"


@pytest.mark.parametrize(
    ("body", "metrics"),
    [
        (LOGLIKELIHOOD + f"metric_list: [{{metric: acc, {MEAN}}}]\n", ["acc"]),
        pytest.param(LOGLIKELIHOOD, ["acc"], marks=pytest.mark.long),
        pytest.param(CHOICES + GREEDY, ["exact_match", "acc"], marks=pytest.mark.long),
        (CHOICES, ["acc", "acc_norm"]),
        (GENERATE + f"metric_list: [{{metric: exact_match, {MEAN}}}]\n", ["exact_match"]),
        (GENERATE + FILTERS % "{function: majority_vote}, {function: take_first}", ["exact_match"]),
        pytest.param(GENERATE + FILTERS % "{function: take_first}", ["exact_match"], marks=pytest.mark.long),
        pytest.param(
            GENERATE + FILTERS % "{function: take_first_k, k: 2}, {function: majority_vote}, {function: take_first}",
            ["exact_match"],
            marks=pytest.mark.long,
        ),
    ],
    ids=["acc", "acc by default", "greedy choices", "choices", "generate", "majority", "first", "first k"],
)  # fmt: skip
def test_scores_are_those_of_lm_eval(external_folder: Path, body: str, metrics: list[str]) -> None:
    task(external_folder, "mine", body)
    found, expected = ours(external_folder, "mine").results.as_json()["tasks"]["mine"], theirs(external_folder, "mine")
    assert found["primary"] == metrics[0]
    assert {metric: found["metrics"][metric]["value"] for metric in metrics} == {
        metric: pytest.approx(expected[metric]) for metric in metrics
    }
    assert found["metrics"][metrics[0]]["value"] is not None


def test_a_model_that_knows_the_answers_scores(external_folder: Path) -> None:
    task(external_folder, "mine", LOGLIKELIHOOD)
    assert ours(external_folder, "mine").results.as_json()["tasks"]["mine"]["metrics"]["acc"]["value"] == pytest.approx(
        2 / 3
    )


def test_a_metric_that_is_a_function_of_the_users_is_scored(external_folder: Path) -> None:
    (external_folder / "tasks/own.py").write_text(
        "def equal(references, predictions, **_):\n    return float(references[0] == predictions[0])\n"
    )
    task(external_folder, "mine", GENERATE + f"metric_list: [{{metric: !function own.equal, {MEAN}}}]\n")
    found = ours(external_folder, "mine").results.as_json()["tasks"]["mine"]
    assert found["primary"] == "equal" and found["metrics"]["equal"]["value"] == pytest.approx(2 / 3)


def test_a_suite_may_not_ask_for_a_metric_that_a_task_lacks(external_folder: Path, capsys: Any) -> None:
    from olmes_suite.cli.main import run

    task(external_folder, "mine", CHOICES)
    suite = external_folder / "suite.yaml"
    suite.write_text("suite: own\ntasks: [{task: mine, primary: accc}]\n")
    assert run(["eval", "--backend", "mock", "--suite", str(suite), "--runs", str(external_folder / "runs")]) == 2
    assert "mine: has no metric 'accc', did you mean 'acc'?; it has acc, acc_norm" in capsys.readouterr().err


def test_metrics_that_are_not_means_are_left_out_with_a_note(external_folder: Path) -> None:
    watcher = Quiet()
    task(external_folder, "mine", LOGLIKELIHOOD + f"metric_list: [{{metric: perplexity}}, {{metric: acc, {MEAN}}}]\n")
    found = ours(external_folder, "mine", watcher=watcher).results.as_json()["tasks"]["mine"]
    assert found["primary"] == "acc" and list(found["metrics"]) == ["acc"]
    assert "mine: perplexity left out: not a mean over documents" in watcher.notes


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (LOGLIKELIHOOD + "metric_list: [{metric: perplexity}]\n", "perplexity: not a mean over documents"),
        (CHOICES + "metric_list: [{metric: mcc}]\n", "mcc: not a mean over documents"),
        (CHOICES + "metric_list: [{metric: likelihood}]\n", "likelihood: not a mean over documents"),
        (
            GENERATE + f"process_results: !function functions.texts\nmetric_list: [{{metric: mine, {MEAN}}}]\n",
            "mine is not a number",
        ),
        (GENERATE + "metric_list: [{metric: bleu}]\n", "bleu: not a mean over documents"),
        (
            GENERATE.replace("max_gen_toks: 8", "max_gen_toks: 8, num_beams: 4"),
            "num_beams would change",
        ),
        ("output_type: loglikelihood_rolling\ndoc_to_target: '{{a}}'\n", "loglikelihood_rolling is not supported"),
    ],
)
def test_an_unsuitable_task_is_named_before_the_model_is_asked(external_folder: Path, body: str, reason: str) -> None:
    """The other task of the run is scored all the same."""
    (external_folder / "tasks/functions.py").write_text("def texts(doc, results): return {'mine': 'good'}\n")
    task(external_folder, "bad", body)
    task(external_folder, "good", CHOICES)
    found = ours(external_folder, "bad", "good")
    assert found.failed and reason in found.results.as_json()["tasks"]["bad"]["error"]
    assert found.results.as_json()["tasks"]["good"]["metrics"]["acc"]["value"] == pytest.approx(2 / 3)


def test_scored_responses_say_which_choices_are_greedy(external_folder: Path) -> None:
    task(external_folder, "mine", CHOICES + f"metric_list: [{{metric: exact_match, {MEAN}}}]\n")
    file, line = external_folder / "r.jsonl", {"doc_id": 0, "loglikelihoods": [-0.5, -2.0]}
    file.write_text(json.dumps(line))
    with pytest.raises(UsageError, match="needs `is_greedy`"):
        score_responses("mine", file, DataSource())
    file.write_text(json.dumps({**line, "is_greedy": [True, False]}))
    assert score_responses("mine", file, DataSource())[0]["metrics"]["exact_match"]["value"] == 1.0
    file.write_text(json.dumps({**line, "is_greedy": [True]}))
    with pytest.raises(UsageError, match="one for each"):
        score_responses("mine", file, DataSource())


def test_what_a_mean_is() -> None:
    from lm_eval.api import metrics

    assert is_mean(metrics.mean) and is_mean(metrics.nanmean) and is_mean(lambda xs: sum(xs) / len(xs))
    for other in (metrics.perplexity, metrics.median, metrics.f1_score, max, lambda xs: xs["score"], None):
        assert not is_mean(other)


HEAD = "dataset_path: json\ndataset_kwargs: {data_files: {test: ROWS}}\n"
WRONG = {
    "tab": ("dataset_path: json\n\tdataset_name: x\n", r"own.yaml:3: .*indent with spaces, not with tabs"),
    "bracket": ("metric_list: [\n", r"own.yaml:4: did not find"),
    "include": ("include: base.yaml\n" + HEAD, r"include: there is no file .*base.yaml"),
    "module": (HEAD + "doc_to_text: !function other.f\n", r"cannot be imported \(ModuleNotFoundError.*'other'"),
    "import": (HEAD + "doc_to_text: !function broken.f\n", r"cannot be imported \(ModuleNotFoundError.*'nosuch'"),
    "function": (HEAD + "doc_to_text: !function functions.f\n", r"\(AttributeError.*no function 'f'"),
    "raises": (HEAD + "doc_to_text: !function functions.bad\n", r"doc_to_text: KeyError: nope"),
    "key": (HEAD + "num_fewshots: 3\n", r"unknown key 'num_fewshots', did you mean 'num_fewshot'\?"),
    "data set": ("test_split: test\n", r"lacks dataset_path"),
    "target": (HEAD + "doc_to_target:\n", r"lacks doc_to_target"),
    "split": (HEAD + "test_split: tset\n", r"test_split: the data set has no split 'tset', did you mean 'test'\?"),
    "field": (HEAD + "doc_to_text: '{{nope}}'\n", r"doc_to_text: UndefinedError: 'nope' is undefined"),
    "template": (HEAD + "doc_to_text: '{{q'\n", r"doc_to_text: TemplateSyntaxError"),
    "filter": (HEAD + "filter_list: [{name: f, filter: [{function: regexx}]}]\n", r"Unknown filter 'regexx'.*regex"),
    "metric": (HEAD + "metric_list: [{metric: exakt}]\n", r"unknown metric 'exakt', did you mean 'exact_match'\?"),
    "aggregation": (
        HEAD + "metric_list: [{metric: acc, aggregation: meen}]\n",
        r"unknown aggregation 'meen', did you mean 'mean'\?",
    ),
    "metrics": (HEAD + "metric_list: {metric: acc}\n", r"metric_list is not a list|cannot be built"),
    "output": (HEAD + "output_type: generate\n", r"invalid output_type 'generate'"),
    "settings": (HEAD + "generation_kwargs: [1]\n", r"generation_kwargs: expected a mapping"),
    "limit": (HEAD + "generation_kwargs: {max_gen_toks: 0}\n", r"generation_kwargs: max_gen_toks: expected a number"),
    "no repeats": (HEAD + "repeats: 0\n", r"repeats: expected a whole number from 1, not 0"),
    "repeats": (HEAD + "repeats: many\n", r"repeats: expected a whole number from 1, not 'many'"),
    "shots": (HEAD + "num_fewshot: -2\n", r"num_fewshot: expected a whole number from 0, not -2"),
    "choices": (HEAD + "output_type: multiple_choice\n", r"lacks doc_to_choice"),
    "pattern": (
        HEAD + "filter_list: [{name: f, filter: [{function: regex, regex_pattern: '('}]}]\n",
        r"filter_list: f: regex: error: missing \)",
    ),
    "argument": (
        HEAD + "filter_list: [{name: f, filter: [{function: regex, pattern: a}]}]\n",
        r"filter_list: f: regex: TypeError.*unexpected keyword argument 'pattern'",
    ),
    "first k": (
        HEAD + "repeats: 2\nfilter_list: [{name: f, filter: [{function: take_first_k, k: 5}]}]\n",
        r"take_first_k: takes 5 answers and repeats is 2",
    ),
    "no function": (HEAD + "filter_list: [{name: f, filter: [{funktion: regex}]}]\n", r"filter_list: f: .*`function`"),
    "examples": (HEAD + "num_fewshot: 7\n", r"num_fewshot: 7 examples are wanted and there are 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_task_file_is_one_line_before_the_model_is_loaded(
    external_folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    from olmes_suite.cli.main import run

    body, words = WRONG[name]
    base = {"test_split": "test", "doc_to_text": "'{{q}}'", "doc_to_target": "'{{a}}'", "output_type": "generate_until"}
    usual = "".join(f"{key}: {value}\n" for key, value in base.items() if f"{key}:" not in body)
    text = f"task: own\n{body.replace('ROWS', str(external_folder / 'rows.jsonl'))}{usual}"
    (external_folder / "tasks/own.yaml").write_text(text)
    (external_folder / "tasks/functions.py").write_text("def bad(doc): return doc['nope']\n")
    (external_folder / "tasks/broken.py").write_text("import nosuch\n")
    status = run(["eval", "--backend", "mock", "--task", "own", "--runs", str(external_folder / "runs")])
    errors = capsys.readouterr().err
    (line,) = [line for line in errors.splitlines() if line.startswith("olmes: ")]
    assert status == 2 and line.startswith(f"olmes: {external_folder}/tasks/own.yaml"), errors
    assert "Traceback" not in errors
    assert re.search(words, line), line


def test_data_files_that_cannot_be_read_are_named(external_folder: Path) -> None:
    task(external_folder, "own", "output_type: generate_until\ndoc_to_target: '{{a}}'\n")
    (external_folder / "rows.jsonl").write_text('{"q": 1')
    finished = ours(external_folder, "own")
    error = finished.results.tasks["own"].error
    assert error is not None and error.startswith("the data of own cannot be read (") and "data pull" not in error


FILES = {
    "text": ("json", "data_files: gone.jsonl"),
    "mapping": ("csv", "data_files: {test: gone.csv, train: rows.jsonl}"),
    "list": ("json", "data_files: {test: [rows.jsonl, gone.jsonl]}"),
    "folder": ("json", "data_files: {test: rows.jsonl}, data_dir: gone"),
    "path": ("./gone", ""),
}


@pytest.mark.parametrize("form", FILES)
def test_a_file_that_is_missing_is_said_before_anything_is_loaded(
    external_folder: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.chdir(external_folder)
    path, kwargs = FILES[form]
    task(external_folder, "good", "output_type: generate_until\ndoc_to_target: '{{a}}'\n")
    (external_folder / "tasks/own.yaml").write_text(
        f"task: own\ndataset_path: {path}\ndataset_kwargs: {{{kwargs}}}\ntest_split: test\ndoc_to_text: '{{{{q}}}}'\n"
        "output_type: generate_until\ndoc_to_target: '{{a}}'\n"
    )
    options = Options(model="m", backend="mock", task_names=("good", "own"), source=DataSource(), runs=Path("runs"))
    with pytest.raises(
        UsageError, match=r"own\.yaml: .*gone.*; as in lm-eval, paths are relative to the current folder"
    ):
        evaluate(options, lambda *_: pytest.fail("a model is loaded"), Quiet(), early=True)
    assert not (external_folder / "runs").exists()


@pytest.mark.parametrize("kwargs", ["data_files: {test: 'rows*.jsonl'}", "data_files: 'https://example.org/x.jsonl'"])
def test_patterns_and_addresses_are_left_to_the_loader(external_folder: Path, kwargs: str) -> None:
    file = external_folder / "tasks/own.yaml"
    file.write_text(f"task: own\ndataset_path: json\ndataset_kwargs: {{{kwargs}}}\ntest_split: test\n")
    own_data.check(TaskEntry("own", str(file), "exact_match", 1.0, dataset="json"))


def test_a_later_document_that_cannot_be_rendered_is_named(external_folder: Path) -> None:
    task(external_folder, "own", "output_type: generate_until\ndoc_to_target: '{{a}}'\n")
    text = (external_folder / "tasks/own.yaml").read_text().replace("{{q}}", "{{1 / (1 - gold)}}")
    (external_folder / "tasks/own.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"own.yaml: document 1 cannot be rendered \(doc_to_text: ZeroDivisionError"):
        ours(external_folder, "own")


@pytest.mark.long
def test_unknown_names_and_tags(external_folder: Path) -> None:
    task(external_folder, "own_sums", GENERATE)
    for name, words in (
        ("own_sum", "unknown task 'own_sum', did you mean 'own_sums'\\?; .*--include-path DIR"),
        ("arc_esy", "did you mean 'arc_easy'"),
        ("glue", "'glue' is a tag of lm-eval, not a task; name its tasks one by one, such as cola"),
        ("", "unknown task ''"),
    ):
        with pytest.raises(UsageError, match=words):
            catalog.find(name)
    (external_folder / "mine.yaml").write_text("suite: mine\ntasks: [gsm8k, own_sum]\n")
    options = Options("m", "mock", (str(external_folder / "mine.yaml"),), runs=external_folder / "runs")
    with pytest.raises(UsageError, match="suite mine: unknown task 'own_sum', did you mean 'own_sums'"):
        evaluate(options, lambda *_: Knows(), Quiet())


def test_a_task_with_a_class_of_its_own_leaves_the_others(external_folder: Path) -> None:
    options = Options("m", "mock", (), ("squadv2", "gsm8k"), 1, 1, DataSource(sample=True), external_folder / "runs")
    finished = evaluate(options, lambda *_: MockBackend(), Quiet())
    assert finished.failed == ["squadv2"] and "run it with lm_eval" in str(finished.results.tasks["squadv2"].error)


@pytest.mark.long
def test_the_data_of_other_packages_tasks_can_be_pulled(
    external_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from olmes_suite.cli.main import run

    task(external_folder, "own", GENERATE)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (external_folder / "mine.yaml").write_text("suite: mine\ntasks: [boolq, own]\n")
    arguments = ["--suite", str(external_folder / "mine.yaml"), "--out", str(external_folder / "mirror")]
    status = run(["data", "pull", *arguments, "--include-path", str(external_folder / "tasks")])
    out = capsys.readouterr().out
    assert status == 1 and "aps/super_glue/boolq/validation.parquet" in out and "0 of 1 valid" in out
    assert "olmes data pull --task boolq" in out and "json/" not in out


def test_a_suite_with_own_tasks_is_listed(external_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from olmes_suite.cli.main import run

    task(external_folder, "own_sums_of_numbers", GENERATE)
    (external_folder / "mine.yaml").write_text("suite: mine\ntasks: [gsm8k, own_sums_of_numbers]\n")
    where = ["--include-path", str(external_folder / "tasks")]
    assert run(["tasks", "--suite", str(external_folder / "mine.yaml"), *where]) == 0
    assert "own_sums_of_numbers  exact_match" in capsys.readouterr().out
    assert run(["tasks", "show", "own_sums_of_numbers", *where]) == 0
    assert "[user] The sky is" in capsys.readouterr().out
    assert run(["tasks", *where]) == 0 and "own_sums_of_numbers  exact_match" in capsys.readouterr().out
