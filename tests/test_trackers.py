"""Reports to trackers, read back with the trackers' own clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gate_runs import table, write_scores
from helpers import environment
from kept_tracker import Kept, tables, use

from olmes_suite import extras
from olmes_suite.errors import UsageError
from olmes_suite.runs.imports import import_scores
from olmes_suite.runs.run import Run
from olmes_suite.trackers import content, factory
from olmes_suite.trackers.base import Report, Table, TrackedRun
from olmes_suite.trackers.session import FILE, Session

Cli = Callable[..., tuple[int, str, str]]
EVAL = ("eval", "--backend", "mock", "--task", "gsm8k", "--data", "sample", "--report-to")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> type[Kept]:
    """The tracker `kept`, which is reported to."""
    return use(monkeypatch)


def test_an_evaluation_reports_scores_and_answers(cli: Cli, kept: type[Kept]) -> None:
    status, out, err = cli(*EVAL, "kept", "--json")
    assert status == 0 and "a client prints" not in out
    name = json.loads(out)["run"]
    (run,) = kept.runs
    assert f"kept: https://tracker/{run}" in err
    ((config,),) = kept.received(run, "start")
    assert config["backend"] == "mock" and config["tasks"] == "tulu3_gsm8k" and config["path"].endswith(name)
    ((scores, step),) = kept.received(run, "scores")
    assert step == 0 and scores["score/tulu3_gsm8k"] == 0.0
    assert scores["score_low/tulu3_gsm8k"] == 0.0 and 0.4 < scores["score_high/tulu3_gsm8k"] < 0.6
    found = tables(kept, run)
    assert list(found) == ["scores", "wrong_answers", "sample_answers"]
    wrong = [dict(zip(found["wrong_answers"].columns, row, strict=True)) for row in found["wrong_answers"].rows]
    assert len(wrong) == 4 and found["wrong_answers"].columns[0] == "question"
    assert all(one["question"].startswith("Question: ") and one["answer"] and one["score"] == 0 for one in wrong)
    assert len(found["sample_answers"].rows) == content.SAMPLED


def test_repeating_the_command_and_the_gate_continue_the_trackers_run(cli: Cli, kept: type[Kept]) -> None:
    _, out, _ = cli(*EVAL, "kept", "--json")
    name = json.loads(out)["run"]
    status, _, err = cli(*EVAL, "kept")
    assert status == 0 and "already finished" in err
    status, _, _ = cli("gate", "--baseline", name, "--candidate", name, "--report-to", "kept")
    assert status == 3
    (run,) = kept.runs
    assert len(kept.received(run, "start")) == 3 and len(kept.received(run, "finish")) == 3
    facts = kept.received(run, "facts")[-1][0]
    assert facts["gate"] == "inconclusive" and facts["gate_baseline"] == name
    assert [row[:2] for row in tables(kept, run)["gate"].rows] == [
        ("tulu3_gsm8k", "inconclusive"),
        ("suite average", "inconclusive"),
    ]
    assert kept.received(run, "scores")[-1] == ({"gate/exit_status": 3.0}, 0)


def test_a_candidate_that_is_a_file_gets_a_run_of_its_name(cli: Cli, kept: type[Kept], tmp_path: Path) -> None:
    import_scores(write_scores(tmp_path / "a.jsonl", {"x": table(1, 0, 50)[0]}), "a", tmp_path / "runs", ["olmes"])
    cli("baseline", "save", "a", "a.json.gz")
    status, _, _ = cli("gate", "--baseline", "a", "--candidate", "a.json.gz", "--report-to", "kept")
    assert status in (0, 3) and len(kept.runs) == 1
    (run,) = kept.runs
    assert kept.received(run, "facts")[0][0]["gate"] in ("pass", "inconclusive")


@pytest.mark.parametrize("method", ["start", "scores", "facts", "table", "finish"])
def test_a_tracker_that_fails_is_a_warning(
    cli: Cli, kept: type[Kept], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(kept, "broken", method)
    status, out, err = cli(*EVAL, "kept", "--json")
    assert status == 0 and json.loads(out)["tasks"]["tulu3_gsm8k"]["n"] == 4
    lines = [line for line in err.splitlines() if "kept" in line]
    assert len(lines) == 1 and "warning: the report was not sent: ConnectionError: no route to host" in lines[0]
    assert "second line" not in err


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "wndb",
            "--report-to: unknown tracker 'wndb', did you mean 'wandb'?; known: wandb, mlflow, ",
        ),
        ("tensorboard,", "--report-to: a name is empty; known: wandb"),
        ("", "--report-to: a name is empty"),
        ("all", "--report-to: unknown tracker 'all'"),
    ],
)
@pytest.mark.parametrize("command", [EVAL, ("gate", "--baseline", "a", "--candidate", "b", "--report-to")])
def test_a_wrong_name_is_one_line_before_the_work(cli: Cli, command: tuple[str, ...], value: str, said: str) -> None:
    status, out, err = cli(*command, value)
    assert (status, out, len(err.splitlines())) == (2, "", 1) and err.startswith(f"olmes: {said}")
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", factory.BUILT_IN)
def test_a_missing_client_is_one_line_with_its_extra(cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(extras, "installed", lambda module: module not in factory.BUILT_IN)
    status, _, err = cli(*EVAL, name)
    assert status == 2 and not Path("runs").exists()
    assert err.strip() == (
        f"olmes: --report-to {name} needs packages that are not installed ({name}): pip install 'olmes-suite[{name}]'"
    )


def test_a_client_that_cannot_be_imported_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise ImportError("libfoo.so: cannot open shared object file\nmore")

    monkeypatch.setattr(factory, "kind", broken)
    monkeypatch.setattr(factory, "require", lambda *_: None)
    with pytest.raises(
        UsageError, match=r"^--report-to wandb: ImportError: libfoo.so: cannot open shared object file$"
    ):
        factory.chosen("wandb")


def test_texts_are_cut_and_cleaned_and_the_rows_are_few(cli: Cli) -> None:
    long = "x" * 3000
    described = {"question": f"first {long} last", "choices": ["a", "b"], "reference": "r\x00\x1b[31m", "note": "",
                 "task": "t", "doc_id": 7,
                 "run": {"response": f"first {long} last", "extracted": None, "score": 0.0, "flags": []}}  # fmt: skip
    row = dict(zip(content.DOCUMENT, content.document(described), strict=True))
    assert row["question"].endswith(" last") and row["question"].startswith("… x") and len(row["question"]) == 2002
    assert row["answer"].startswith("first x") and row["answer"].endswith("x …")
    assert row["reference"] == "r��[31m" and row["choices"] == "a\nb" and row["extracted"] == ""
    many = content.of_rollouts(["p"] * 999, ["r"] * 999, [0.5] * 999, rewards={"gsm8k": [1.0] * 999})
    assert len(many.tables[0].rows) == content.ROWS


def test_rollouts_of_chat_messages() -> None:
    turns = [{"role": "user", "content": "2 + 2?"}]
    report = content.of_rollouts(
        [turns], [[{"role": "assistant", "content": "4"}]], [float("nan")], rewards={"gsm8k": [None]}
    )
    assert report.tables[0].columns == ("prompt", "response", "advantage", "gsm8k")
    assert report.tables[0].rows == (("user: 2 + 2?", "assistant: 4", None, None),)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"kept": 1}', '{"kept": {"id": 5}}'])
def test_a_damaged_memory_starts_a_new_run(kept: type[Kept], tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    one = Session(("kept",), TrackedRun("r", tmp_path), tmp_path / FILE)
    one.send(Report({"a": 1.0}), 3)
    one.close()
    assert list(kept.runs) == ["r#0"] and json.loads((tmp_path / FILE).read_text())["kept"] == {"id": "r#0"}


ROWS = (("2 + 2? ![x](http://x)\n<b>", "5\n# no", 0.0), ("é", "", None))
REPORT = Report(
    {"score/tulu3_gsm8k": 0.5, "score_low/a:b": 0.25},
    {"gate": "pass"},
    (Table("wrong_answers", ("question", "answer", "score"), ROWS),),
)
WRITE = """
import sys
from pathlib import Path
from test_trackers import REPORT
from olmes_suite.trackers.base import TrackedRun
from olmes_suite.trackers.session import Session
name, steps = sys.argv[1], sys.argv[2:]
one = Session((name,), TrackedRun("run-1", Path("local"), {"model": "m", "limit": 4}), Path("trackers.json"))
for step in steps:
    one.send(REPORT, int(step))
one.close()
"""


def write(name: str, tmp_path: Path, *steps: int, **variables: str) -> str:
    """Send the report in a process of its own, which ends the client's threads; returns what was said."""
    env = environment(tmp_path, **variables)
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", WRITE, name, *map(str, steps)], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout == "", done.stdout + done.stderr
    assert "warning" not in done.stderr.lower(), done.stderr
    return done.stderr


def remembered(tmp_path: Path, name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((tmp_path / "trackers.json").read_text())[name]
    return found


def journal(file: Path) -> Iterator[bytes]:
    """The records of a wandb file: LevelDB's log format, in blocks of 32 KiB, after a header of 7 bytes."""
    data, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # the whole or the last part of a record
            yield whole
            whole = b""


@pytest.mark.long
def test_tensorboard_reads_the_event_files(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    said = write("tensorboard", tmp_path, 10, 20)
    write("tensorboard", tmp_path, 30)
    assert said == f"tensorboard: tensorboard --logdir {tmp_path / 'local'}\n"
    assert len(list((tmp_path / "local").iterdir())) == 2
    events = EventAccumulator(str(tmp_path / "local"))
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars("score/tulu3_gsm8k")] == [(10, 0.5), (20, 0.5), (30, 0.5)]
    texts = {tag: events.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    assert texts["run/gate"].strip() == "pass" and texts["run/limit"].strip() == "4"
    assert texts["wrong_answers"].startswith("**question**\n\n    2 + 2? ![x](http://x)\n    <b>\n\n**answer**")


@pytest.mark.long
def test_tensorboard_shows_untrusted_text_as_text(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.text.text_plugin import text_array_to_html
    from tensorboard.util.tensor_util import make_ndarray

    write("tensorboard", tmp_path, 1)
    events = EventAccumulator(str(tmp_path / "local"))
    events.Reload()
    html = text_array_to_html(make_ndarray(events.Tensors("wrong_answers")[0].tensor_proto), True)
    assert "<img" not in html and "<b>" not in html and "<h1>" not in html and "&lt;b&gt;" in html


@pytest.mark.long
def test_wandb_offline_continues_its_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="no wandb: pip install 'olmes-suite[wandb]'")
    from wandb.proto import wandb_internal_pb2 as messages

    said = write("wandb", tmp_path, 10, 20, WANDB_MODE="offline", WANDB_PROJECT="mine")
    found = remembered(tmp_path, "wandb")
    write("wandb", tmp_path, 30, WANDB_MODE="offline")
    assert remembered(tmp_path, "wandb") == found and found["project"] == "mine"
    assert "offline; upload it with: wandb sync" in said
    records = []
    for file in sorted((tmp_path / "wandb").glob(f"offline-run-*/run-{found['id']}.wandb")):
        for data in journal(file):
            record = messages.Record()
            record.ParseFromString(data)
            records.append(record)
    lines = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    curve = [(one["checkpoint_step"], one["score/tulu3_gsm8k"]) for one in lines if "score/tulu3_gsm8k" in one]
    assert curve == [(10, 0.5), (20, 0.5), (30, 0.5)]
    shown = json.loads(next((tmp_path / "wandb").rglob("wrong_answers*.table.json")).read_text())
    assert shown["columns"] == ["question", "answer", "score"] and shown["data"][0][1] == "5\n# no"


@pytest.mark.long
def test_wandb_without_a_key_is_refused_before_the_work(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="no wandb: pip install 'olmes-suite[wandb]'")
    monkeypatch.setenv("HOME", os.getcwd())
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    status, _, err = cli(*EVAL, "wandb")
    assert status == 2 and err.splitlines()[-1].startswith("olmes: --report-to wandb: no API key: run `wandb login`")


@pytest.mark.long
@pytest.mark.parametrize(
    "store",
    [pytest.param("sqlite:///mlflow.db", marks=pytest.mark.slow), "file:./mlruns"],  # its tables take a minute
)
def test_mlflow_has_scores_tags_and_tables(tmp_path: Path, store: str) -> None:
    mlflow = pytest.importorskip("mlflow", reason="no mlflow: pip install 'olmes-suite[mlflow]'")
    if store.startswith("sqlite"):
        pytest.importorskip("sqlalchemy", reason="no sqlalchemy, which MLflow's databases need")
    variables = {"MLFLOW_TRACKING_URI": store, "MLFLOW_EXPERIMENT_NAME": "mine", "MLFLOW_ALLOW_FILE_STORE": "true"}
    write("mlflow", tmp_path, 10, 20, **variables)
    found = remembered(tmp_path, "mlflow")
    write("mlflow", tmp_path, 20, 30, **variables)
    assert remembered(tmp_path, "mlflow") == found
    where = store.replace("///", f"///{tmp_path}/").replace("file:.", f"file:{tmp_path}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        client = mlflow.MlflowClient(where)
        run = client.get_run(found["run_id"])
        history = client.get_metric_history(run.info.run_id, "score/tulu3_gsm8k")
    assert run.info.status == "FINISHED" and run.info.run_name == "run-1" and run.data.tags["gate"] == "pass"
    assert run.data.params == {"model": "m", "limit": "4"} and run.data.metrics["score_low/a_b"] == 0.25
    assert sorted({(one.step, one.value) for one in history}) == [(10, 0.5), (20, 0.5), (30, 0.5)]
    files = sorted((tmp_path / "mlruns").rglob("wrong_answers/step-*.json"))
    assert [file.stem for file in files] == ["step-10", "step-20", "step-30"]
    for file in files:
        shown = json.loads(file.read_text())
        assert shown["columns"] == ["question", "answer", "score"] and [row[0] for row in shown["data"]][1:] == ["é"]


@pytest.mark.long
def test_trackio_keeps_scores_and_tables(tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="no trackio: pip install 'olmes-suite[trackio]'")
    folder = {"TRACKIO_DIR": str(tmp_path / "trackio"), "TRACKIO_PROJECT": "mine"}
    write("trackio", tmp_path, 10, 20, **folder)
    write("trackio", tmp_path, 30, TRACKIO_DIR=folder["TRACKIO_DIR"])
    assert remembered(tmp_path, "trackio") == {"project": "mine", "name": "run-1"}
    program = (
        "import json; from trackio.sqlite_storage import SQLiteStorage as store\n"
        "print(json.dumps([store.get_runs('mine'), store.get_logs('mine', 'run-1')], default=str))"
    )
    env = environment(tmp_path, **folder) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    runs, logs = json.loads(done.stdout.splitlines()[-1])
    assert runs == ["run-1"]
    curve = [(one["step"], one["score/tulu3_gsm8k"]) for one in logs if "score/tulu3_gsm8k" in one]
    assert curve == [(10, 0.5), (20, 0.5), (30, 0.5)]
    shown = [one["wrong_answers"] for one in logs if "wrong_answers" in one]
    assert len(shown) == 3 and "2 + 2?" in json.dumps(shown[0])


def test_a_run_without_prompts_or_responses_is_reported(tmp_path: Path) -> None:
    before, _ = table(1, 3, 50)
    path = import_scores(write_scores(tmp_path / "a.jsonl", {"x": before}), "a", tmp_path / "runs", ["olmes"])
    report = content.of_run(Run(path))
    found = {one.name: one for one in report.tables}
    assert len(found["wrong_answers"].rows) == 1 and found["wrong_answers"].rows[0][0] == ""
    assert "imported scores come without prompts" in found["wrong_answers"].rows[0]
