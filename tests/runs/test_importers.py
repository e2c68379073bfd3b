"""Logs of other tools become runs: every document arrives, figures are computed again, and traps are told apart."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from helpers import olmes_here

from olmes_suite import api
from olmes_suite.cli.main import run as cli
from olmes_suite.errors import UsageError
from olmes_suite.runs.importers import reader, write
from olmes_suite.runs.importers.log import GROUP, left_out_line


def imported(kind: str, path: Path, runs: Path, **options: Any) -> list[write.Imported]:
    logs = write.gather(reader(kind)(path))
    return [
        write.write(log, n, runs, ["olmes"], **options) for log, n in zip(logs, write.names(logs, None), strict=True)
    ]


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


def sample(doc_id: int, answer: str, score: float, **more: Any) -> dict[str, Any]:
    """A row of lm-eval."""
    arguments = {"gen_args_0": {"arg_0": f"Question {doc_id}", "arg_1": {}}}
    return {
        "doc_id": doc_id, "doc": {}, "target": "7", "arguments": arguments, "resps": [[answer]],
        "filtered_resps": [answer[-1:]], "doc_hash": "", "exact_match": score, **more,
    }  # fmt: skip


DATE = "2025-04-04T02-52-53.039863"


def lm_eval(folder: Path, rows: list[dict[str, Any]], figures: dict[str, float], name: str = "t") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    results = {"results": {name: {"alias": name, **figures}}, "configs": {name: {}}, "model_name": "org/m", "date": 1.5}
    (folder / f"results_{DATE}.json").write_text(json.dumps(results))
    lines(folder / f"samples_{name}_{DATE}.jsonl.gz", rows)
    return folder


@pytest.mark.parametrize("named", [True, False], ids=["named", "in order"])
def test_filters_of_lm_eval_are_metrics(tmp_path: Path, named: bool) -> None:
    strict = [sample(n, "x7", 0.0, **({"filter": "strict-match"} if named else {})) for n in range(4)]
    flexible = [
        sample(n, "x7", 1.0 if n else 0.0, **({"filter": "flexible-extract"} if named else {})) for n in range(4)
    ]
    figures = {"exact_match,strict-match": 0.0, "exact_match,flexible-extract": 0.75, "exact_match_stderr,x": 0.1}
    logs = lm_eval(tmp_path / "logs", strict + flexible, figures)
    (one,) = imported("lm-eval", logs, tmp_path / "runs", metric="exact_match,flexible-extract")
    figure = one.tasks["t"]
    assert (figure.n, figure.value, figure.reported, figure.note) == (4, 0.75, 0.75, "") and one.left_out == {}
    assert figure.others == {"exact_match,strict-match": 0.0}
    run = api.load(one.path)
    assert (
        list(run.documents("t")["score"]) == [0.0, 1.0, 1.0, 1.0] and list(run.documents("t")["reference"]) == ["7"] * 4
    )
    assert list(run.responses("t")["text"]) == ["x7"] * 4


def test_repeated_rows_and_tasks_without_samples_are_counted(tmp_path: Path) -> None:
    rows = [sample(n, "7", 1.0, filter="none") for n in (0, 1, 1)]
    logs = lm_eval(tmp_path / "logs", rows, {"exact_match,none": 0.5})
    content = json.loads(next(logs.glob("results*")).read_text())
    content["results"]["other"] = {"acc,none": 0.4}
    next(logs.glob("results*")).write_text(json.dumps(content))
    (one,) = imported("lm-eval", logs, tmp_path / "runs")
    assert one.left_out == {"document given again": 1, "task without samples": 1}
    assert "not the mean" in one.tasks["t"].note and one.tasks["t"].n == 2


@pytest.mark.parametrize("key", ["group_subtasks", "groups"])
def test_the_average_of_a_group_is_said_to_follow_from_its_tasks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    logs = lm_eval(tmp_path / "logs", [sample(0, "7", 1.0)], {"exact_match,none": 1.0})
    lines(logs / f"samples_u_{DATE}.jsonl.gz", [sample(0, "7", 1.0)])
    file = next(logs.glob("results*"))
    content = json.loads(file.read_text())
    figures = {
        "all": {"alias": "all", "acc,none": 0.4},
        "part": {"alias": " - part", "acc,none": 0.4},
        "heading": {"alias": "heading", "acc_stderr": "N/A"},
    }
    content["results"] |= {"u": {"exact_match,none": 1.0}, **figures}
    content["configs"]["u"] = {}
    members = {"all": ["part", "u"], "part": ["t"], "heading": ["all"]}
    file.write_text(json.dumps(content | {key: members if key == "group_subtasks" else figures}))
    assert cli(["import", "lm-eval", str(logs), "--runs", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    assert "averages of 2 groups are not imported: they follow from the groups' tasks" in said
    assert "left out" not in said and "t: 1 document" in said and "u: 1 document" in said
    (one,) = imported("lm-eval", logs, tmp_path / "other")
    assert one.left_out == {"average of a group, whose tasks are imported": 2} and [*one.tasks] == ["t", "u"]


def test_one_average_is_singular() -> None:
    assert left_out_line(GROUP, 1).startswith("the average of 1 group is not imported: it follows from")
    assert left_out_line("document given again", 2) == "left out: 2 × document given again"


def test_log_likelihoods_of_lm_eval(tmp_path: Path) -> None:
    row = sample(0, "", 1.0) | {
        "resps": [[["-1.5", "True"]], [["-2.5", "False"]]],
        "filtered_resps": [["-1.5", "True"]],
    }
    (one,) = imported("lm-eval", lm_eval(tmp_path / "logs", [row], {}), tmp_path / "runs")
    assert list(api.load(one.path).responses("t")["loglikelihood"]) == [-1.5, -2.5]


def test_two_logs_of_one_task_are_two_runs(tmp_path: Path) -> None:
    for prompt in ("plain", "cot"):
        lm_eval(tmp_path / "logs" / prompt / "org__m", [sample(0, "7", 1.0)], {"exact_match": 1.0})
    lm_eval(tmp_path / "logs/third/org__m", [sample(0, "7", 1.0)], {"exact_match": 1.0}, name="u")
    logs = write.gather(reader("lm-eval")(tmp_path / "logs"))
    assert write.names(logs, None) == ["m-cot", "m-plain"]
    assert [sorted(log.tasks) for log in logs] == [["t", "u"], ["t"]]


def inspect_sample(place: str, epoch: int, value: Any, **more: Any) -> dict[str, Any]:
    content = [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "7"}]
    output = {"choices": [{"message": {"content": content}, "stop_reason": "max_tokens"}]}
    scores = {} if value is None else {"match": {"value": value, "answer": "7"}}
    return {"id": place, "epoch": epoch, "input": "Q", "target": "7", "output": output, "scores": scores, **more}


def inspect_log(samples: list[dict[str, Any]], accuracy: float, reducer: str = "mean", **more: Any) -> dict[str, Any]:
    evaluation = {"task": "gsm", "model": "openai/m", "config": {"epochs_reducer": [reducer]}}
    scores = [{"name": "match", "scored_samples": 2, "metrics": {"accuracy": {"value": accuracy}}}]
    return {"status": "success", "eval": evaluation, "results": {"scores": scores}, "samples": samples, **more}


@pytest.mark.parametrize("form", ["json", "eval"])
def test_epochs_and_errors_of_inspect(tmp_path: Path, form: str) -> None:
    samples = [inspect_sample("a", 1, "C"), inspect_sample("a", 2, "I"), inspect_sample("b", 1, "P")]
    samples += [inspect_sample("b", 2, "C", error={"message": "x"}), inspect_sample("c", 1, None)]
    log = inspect_log(samples, 0.5)
    path = tmp_path / f"log.{form}"
    if form == "json":
        path.write_text(json.dumps(log))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("header.json", json.dumps({k: v for k, v in log.items() if k != "samples"}))
            for number, one in enumerate(samples):
                archive.writestr(f"samples/{number}.json", json.dumps(one))
    (one,) = imported("inspect", path, tmp_path / "runs")
    assert one.tasks["gsm"].value == 0.5 and one.tasks["gsm"].reported == 0.5
    assert one.left_out == {"sample ended with an error": 1, "sample without a score": 1}
    documents = api.load(one.path).documents("gsm")
    assert list(documents["doc_id"]) == ["a", "b"] and list(documents["sample_scores"][0]) == [1.0, 0.0]
    responses = api.load(one.path).responses("gsm")
    assert set(responses["thinking"]) == {"hm"} and set(responses["finish_reason"]) == {"length"}


def test_another_reducer_of_inspect(tmp_path: Path) -> None:
    reductions = [{"scorer": "match", "samples": [{"sample_id": "a", "value": 1.0}]}]
    samples = [inspect_sample("a", 1, "C"), inspect_sample("a", 2, "I")]
    (tmp_path / "log.json").write_text(json.dumps(inspect_log(samples, 1.0, "max", reductions=reductions)))
    (one,) = imported("inspect", tmp_path / "log.json", tmp_path / "runs")
    assert one.tasks["gsm"].value == 1.0 and one.tasks["gsm"].note == ""


def test_olmes(tmp_path: Path) -> None:
    config = {"primary_metric": "acc_uncond", "metadata": {"alias": "obqa::olmes"}}
    metrics = {"task_name": "obqa", "task_config": config, "model_config": {"model": "/w/x/finetuned/checkpoint-5/"}}
    metrics |= {"metrics": {"acc_raw": 0.0, "acc_uncond": 0.5, "primary_score": 0.5}, "num_instances": 2}
    rows = [
        {"doc_id": n, "metrics": {"acc_raw": 0, "acc_uncond": n}, "label": 1,
         "model_output": [{"sum_logits": -2.0, "is_greedy": False}, {"sum_logits": -1.0, "is_greedy": True}]}
        for n in (0, 1)
    ]  # fmt: skip
    lines(tmp_path / "out/task-obqa-predictions.jsonl.gz", rows)
    (tmp_path / "out/task-obqa-metrics.json").write_text(json.dumps(metrics))
    (one,) = imported("olmes", tmp_path / "out", tmp_path / "runs")
    assert one.path.name == "finetuned-checkpoint-5" and one.tasks["obqa::olmes"].metric == "acc_uncond"
    assert one.tasks["obqa::olmes"].value == 0.5 and one.tasks["obqa::olmes"].others == {"acc_raw": 0.0}


def test_every_eval_ever(tmp_path: Path) -> None:
    result = {"evaluation_name": "gsm", "metric_config": {"metric_name": "Accuracy"}, "score_details": {"score": 0.5}}
    detailed = {"format": "jsonl", "file_path": "data/gsm/org/m/u_samples.jsonl"}
    record = {"model_info": {"id": "org/m"}, "evaluation_results": [result, {**result, "evaluation_name": "none"}]}
    folder = tmp_path / "data/gsm/org/m"
    rows = [
        {"evaluation_name": "gsm", "sample_id": f"s{n}", "input": {"raw": "Q", "reference": ["7"]},
         "output": {"raw": ["7"], "reasoning_trace": ["hm"]}, "answer_attribution": [], "evaluation": {"score": n}}
        for n in (0, 1)
    ]  # fmt: skip
    lines(folder / "u_samples.jsonl", rows)
    (folder / "u.json").write_text(json.dumps({**record, "detailed_evaluation_results": detailed}))
    (one,) = imported("every-eval-ever", tmp_path, tmp_path / "runs")
    assert one.tasks["gsm"].value == one.tasks["gsm"].reported == 0.5
    assert one.left_out == {"score without documents": 1}
    assert set(api.load(one.path).responses("gsm")["thinking"]) == {"hm"}


def test_lighteval(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    doc = {"id": "5", "query": "Q", "choices": [" a", " b"], "gold_index": 1}
    answer = {"text": [], "logprobs": [-1.0, -2.0], "reasonings": []}
    folder = tmp_path / "details/org/m" / DATE
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([{"doc": doc, "metric": {"acc": 1}, "model_response": answer}]),
                   folder / f"details_anli:r1|0_{DATE}.parquet")  # fmt: skip
    results = {"config_general": {"model_name": "org/m"}, "results": {"anli:r1|0": {"acc": 1.0}, "all": {"acc": 1.0}}}
    (tmp_path / "results").mkdir()
    (tmp_path / f"results/results_{DATE}.json").write_text(json.dumps(results))
    (one,) = imported("lighteval", tmp_path, tmp_path / "runs")
    assert one.tasks["anli:r1|0"].reported == 1.0 and list(api.load(one.path).documents("anli:r1|0")["reference"]) == [
        " b"
    ]


@pytest.mark.parametrize(
    ("kind", "files", "message"),
    [
        ("lm-eval", {}, "no results_"),
        ("lm-eval", {"results.json": "{"}, "not JSON"),
        ("lm-eval", {"samples_t.jsonl": '{"a": 1}\n'}, "line 1: not a sample"),
        ("lm-eval", {"samples_t.jsonl": '{"doc_id": null, "resps": []}\n'}, "line 1: a document's id"),
        ("inspect", {"a.eval": "no zip"}, "not a complete .eval archive"),
        ("inspect", {"a.json": '{"eval": {"model": "m"}, "samples": []}'}, "no document with a score"),
        ("olmes", {"task-a-predictions.jsonl": "[]\n"}, "expected a JSON object"),
        ("lighteval", {}, "no results_"),
        ("every-eval-ever", {"a.json": "{}"}, "not a record"),
    ],
)
def test_bad_logs_are_one_line(tmp_path: Path, kind: str, files: dict[str, str], message: str) -> None:
    (tmp_path / "logs").mkdir()
    for name, text in files.items():
        (tmp_path / "logs" / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        imported(kind, tmp_path / "logs", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_the_command(tmp_path: Path) -> None:
    logs = lm_eval(tmp_path / "logs", [sample(n, "7", n % 2) for n in range(4)], {"exact_match,none": 0.5})
    (tmp_path / "map.yaml").write_text("t: my_task\n")
    arguments = ("import", "lm-eval", logs, "--runs", tmp_path / "runs")
    done = olmes_here(*arguments, "--task-map", tmp_path / "map.yaml", "--json", tmp=tmp_path)
    assert done.returncode == 0, done.stderr
    figure = {"n": 4, "metric": "exact_match", "value": 0.5, "reported": 0.5}
    assert {key: json.loads(done.stdout)[key] for key in ("run", "tasks", "left_out")} == {
        "run": "m", "tasks": {"my_task": figure}, "left_out": {},
    }  # fmt: skip
    again = olmes_here(*arguments, tmp=tmp_path)
    assert again.returncode == 2 and "run m exists" in again.stderr
    assert olmes_here(*arguments, "--name", "b", "--metric", "acc", tmp=tmp_path).returncode == 2
    shown = olmes_here("show", "m", "my_task", "--wrong", "1", "--runs", tmp_path / "runs", tmp=tmp_path)
    assert "Question 0" in shown.stdout and "score 0.00" in shown.stdout
    renamed = (tmp_path / "map.yaml").write_text("nothing: x\n") and olmes_here(
        *arguments, "--name", "c", "--task-map", tmp_path / "map.yaml", tmp=tmp_path
    )
    assert renamed.returncode == 2 and "no task 'nothing'" in renamed.stderr


def test_a_metric_that_some_logs_lack(tmp_path: Path) -> None:
    logs, runs = tmp_path / "logs", tmp_path / "runs"
    lm_eval(logs / "a", [sample(n, "7", 1.0, filter="flexible-extract") for n in range(4)], {})
    results = next(lm_eval(logs / "b", [sample(0, "7", 1.0, filter="other")], {}).glob("results*"))
    results.write_text(results.read_text().replace("org/m", "org/other"))
    arguments = ("import", "lm-eval", logs, "--runs", runs)
    done = olmes_here(*arguments, "--metric", "flexible-extract", tmp=tmp_path)
    assert done.returncode == 2 and not runs.exists()
    assert "did you mean 'exact_match,flexible-extract'?" in done.stderr
    done = olmes_here(*arguments, "--metric", "exact_match,flexible-extract", tmp=tmp_path)
    assert done.returncode == 0 and [path.name for path in runs.iterdir() if path.name[0] != "."] == ["m"]
    assert done.stderr.startswith("note: org/other: not imported, it has no metric 'exact_match,flexible-extract'")


def test_results_without_samples_say_which_option_writes_them(tmp_path: Path) -> None:
    logs = lm_eval(tmp_path / "logs", [sample(0, "7", 1.0)], {"exact_match,none": 0.5})
    next(logs.glob("samples*")).unlink()
    with pytest.raises(UsageError, match=r"without samples.*--log_samples.*olmes import scores"):
        imported("lm-eval", logs, tmp_path / "runs")


@pytest.mark.data
@pytest.mark.parametrize("kind", ["lm-eval", "olmes", "inspect", "lighteval"])
def test_real_logs(kind: str, data_dir: Path, tmp_path: Path) -> None:
    logs = data_dir.parent / "logs" / {"lm-eval": "lm_eval"}.get(kind, kind)
    if not logs.is_dir():
        pytest.skip(f"no logs of {kind} beside the mirror")
    for one in imported(kind, logs, tmp_path / "runs"):
        for figure in one.tasks.values():
            assert figure.reported is not None and (
                figure.value == pytest.approx(figure.reported, abs=5e-4) or figure.note
            )
