"""The leaderboard: rows, marks, lineage, comparisons, embedding. What needs a browser: test_leaderboard_browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from board_store import DEV, UNSEEN, Made, family, make
from board_text import HOSTILE, ONE
from built_page import Page, built

from leaderboard import board, build, comparisons, instances, lineage, marks, published, reading, table
from leaderboard.page_data import Cell, Row
from olmes_suite.cli.main import run as olmes
from olmes_suite.comparison.compare import compare_runs
from olmes_suite.runs.schema import FirstPrompt, Prompts, write_prompts
from olmes_suite.runs.scores import read_run

pytestmark = pytest.mark.xdist_group("leaderboard")  # one store for all


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    runs = tmp_path_factory.mktemp("board") / "runs"
    family(runs)
    return runs


@pytest.fixture(scope="module")
def family_page(store):
    return built(store)


def test_cells_hold_the_scores_of_results_json(store, family_page):
    results = json.loads((store / "llama-dpo-dev-00000003/results.json").read_text())
    cells = family_page.rows["llama-dpo-dev-00000003"]
    for task, _ in DEV:
        metric = results["tasks"][task]["metrics"]["exact_match"]
        shown = [float(cells[task][f"data-{name}"]) for name in ("value", "lo", "hi")]
        assert shown == pytest.approx([metric["value"], *metric["ci95"]], abs=1e-6)


def test_runs_of_one_checkpoint_share_a_row_newest_first(family_page):
    assert list(family_page.rows) == [
        "llama-rlvr-300-dev-00000006", "llama-rlvr-200-dev-00000005", "llama-rlvr-100-dev-00000004",
        "llama-dpo-dev-00000003", "llama-sft-math-dev-00000002", "llama-sft-dev-00000001", "llama-base-dev-00000000",
    ]  # fmt: skip
    assert {task for task, _ in (*DEV, *UNSEEN)} == family_page.rows["llama-dpo-dev-00000003"].keys()


def test_a_repeated_task_starts_its_own_row(tmp_path):
    for number in (1, 2):
        make(tmp_path / "runs", Made(f"again-{number}", "m", ONE, started=number))
    assert list(built(tmp_path / "runs").rows) == ["again-2", "again-1"]


@pytest.mark.long
def test_columns_stand_by_skill_with_dev_before_unseen(family_page):
    shown = [(task["skill"], task["suite"]) for task in family_page.data["tasks"]]
    skills = list(dict.fromkeys(skill for skill, _ in shown))
    assert skills == ["knowledge", "reasoning", "math", "code", "instruction following", "safety"]
    for skill in skills:
        own = [suite for name, suite in shown if name == skill]
        assert own == sorted(own)


def flags(shown: Page, run: str, task: str = "tulu3_gsm8k") -> list[str]:
    return shown.rows[run][task]["data-flags"].split()


def test_marks_of_a_cell(tmp_path):
    runs = tmp_path / "runs"
    make(runs, Made("plain", "a", ONE, started=2.0))
    make(
        runs,
        Made(
            "marked", "b", (*ONE, ("tulu3_safety", "safety")), started=1.0, dirty=0.3, of=1319, limit=60,
            flags={"truncated": 0.2, "request_errors": 0.1}, prints={"prompt": "another", "scorer": "another"},
            judge={"classifier": {"model": "guard"}},
        ),
    )  # fmt: skip
    shown = built(runs)
    assert flags(shown, "plain") == []
    entry = json.loads((runs / "marked/results.json").read_text())["tasks"]["tulu3_gsm8k"]
    found = dict(flag.split(":") for flag in flags(shown, "marked"))
    assert found["contaminated"] == str(entry["clean"]["flagged"])
    assert found["truncated"] == str(entry["flags"]["truncated"])
    assert found["partial"] == "60"
    assert found["differs"] == "prompt+scorer"
    assert "judge" in flags(shown, "marked", "tulu3_safety") and "judge" not in found
    own = shown.data["runs"][1]["tasks"]["tulu3_gsm8k"]
    assert own["clean"]["value"] == pytest.approx(entry["clean"]["metrics"]["exact_match"]["value"], abs=1e-5)


def test_planned_projected_and_stopped_runs_are_marked(tmp_path):
    runs = tmp_path / "runs"
    projected = {"value": 0.6125, "stderr": 0.01, "ci95": [0.59, 0.63], "n": 60, "of": 1319, "baseline": "<b>base"}
    stopped = {"verdict": "fail", "baseline": "base", "looks": [{"documents": 50}, {"documents": 60}]}
    for number, (name, more) in enumerate((("plain", {}), ("plan", {}), ("stop", {"stopped": stopped}))):
        made = Made(name, name, ONE, started=float(number), of=None if name == "plain" else 1319)
        make(runs, replace(made, suites={"dev": ["tulu3_gsm8k"]}))
        file = runs / name / "results.json"
        found = json.loads(file.read_text()) | more
        if name != "plain":
            found["tasks"]["tulu3_gsm8k"] |= {"planned": True, "projected": projected}
            found["suites"]["dev"] |= {"planned": True, "projected": projected}
        file.write_text(json.dumps(found))
    shown = built(runs)
    assert flags(shown, "plain") == [] and "<b>base" not in shown.text
    assert [flag.split(":")[0] for flag in flags(shown, "plan")] == ["partial", "planned", "projected"]
    assert [flag.split(":")[0] for flag in flags(shown, "stop")] == ["partial", "stopped", "projected"]
    rows = {run["run"]: run for run in shown.data["runs"]}
    details = {name: row["tasks"]["tulu3_gsm8k"] for name, row in rows.items()}
    assert details["stop"]["stopped"] == "fail against base after 2 looks" and "stopped" not in details["plan"]
    assert details["plan"]["projected"]["value"] == 0.6125 != details["plan"]["value"]
    assert (rows["plan"]["suites"]["dev"]["part"], rows["stop"]["suites"]["dev"]["part"]) == ("planned", "stopped")
    assert "part" not in rows["plain"]["suites"]["dev"]


def test_looks_are_counted_for_the_whole_lineage(family_page):
    found = flags(family_page, "llama-base-dev-00000000", "tulu3_agieval")
    assert "looks:5" in found
    assert "looks:5" in flags(family_page, "llama-rlvr-300-dev-00000006", "tulu3_agieval")
    assert not any(flag.startswith("looks") for flag in flags(family_page, "llama-base-dev-00000000"))


def test_the_floor_is_a_row_and_a_mark(tmp_path):
    runs = str(tmp_path / "runs")
    for backend in ("floor", "mock", "oracle"):
        olmes(["eval", "--backend", backend, "--task", "gsm8k", "--data", "sample", "--runs", runs])
    shown = built(Path(runs))
    rows = {run["model"]: run for run in shown.data["runs"]}
    assert rows["floor"]["kind"] == "floor"
    assert "floor" in flags(shown, rows["mock"]["run"])
    assert "floor" not in flags(shown, rows["oracle"]["run"])
    floor = rows["floor"]["tasks"]["tulu3_gsm8k"]["value"]
    assert rows["mock"]["tasks"]["tulu3_gsm8k"]["floor"] == floor
    cell = shown.data["tasks"][0]["task"] == "tulu3_gsm8k" and shown.chunk(
        f"c{shown.data['runs'].index(rows['oracle'])}-0"
    )
    asked = shown.chunk(cell["prompts"])
    assert asked["note"] == ""  # the hash of what was asked is that of the recorded responses
    assert asked["docs"][0][2]["m"][0][0] == "user" and asked["docs"][0][2]["p"] == "Answer:"
    assert cell["docs"][0][6][0].strip()


def test_prompts_that_have_changed_are_marked(tmp_path):
    runs = tmp_path / "runs"
    olmes(["eval", "--backend", "mock", "--task", "gsm8k", "--data", "sample", "--runs", str(runs)])
    (file,) = runs.glob("*/responses/tulu3_gsm8k.jsonl")
    file.write_text(re.sub(r'"key": "[0-9a-f]*"', '"key": "ffff"', file.read_text()))
    assert "changed" in built(runs).chunk("p0-0")["note"]


def test_lineage_follows_parents_and_survives_a_loop(tmp_path, family_page):
    parent = {run["model"]: run["parent"] for run in family_page.data["runs"]}
    assert parent["llama-base"] is None
    assert parent["llama-rlvr-200"] == "llama-dpo-dev-00000003"
    assert {run["lineage"] for run in family_page.data["runs"]} == {"llama-base"}
    assert lineage.families([1, 0, "far/away"], ["a", "b", "c"]) == ["b", "a", "away"]
    runs = tmp_path / "runs"
    for name, above in (("a", "b"), ("b", "a")):
        make(runs, Made(name, f"ckpt/{name}", ONE, lineage={"parent": f"ckpt/{above}"}))
    assert len(built(runs).rows) == 2


def test_pairs_are_those_of_olmes_compare(store, family_page):
    at = {run["model"]: number for number, run in enumerate(family_page.data["runs"])}
    found = family_page.chunk("pairs")
    assert len(found) == 21  # all pairs of seven rows
    pair = next(p for p in found if {p["a"], p["b"]} == {at["llama-dpo"], at["llama-rlvr-300"]})
    assert pair["a"] == at["llama-dpo"]  # the parent is the baseline
    told = compare_runs(read_run(store / "llama-dpo-dev-00000003"), read_run(store / "llama-rlvr-300-dev-00000006"))
    for task in told.tasks:
        entry = pair["tasks"][task.task]
        assert (entry["d"], entry["p"]) == pytest.approx((task.difference.delta, task.difference.p), rel=1e-3)
        assert (entry["lo"], entry["hi"]) == pytest.approx(task.difference.ci95, rel=1e-3, abs=1e-4)
    assert pair["skills"]["safety"]["d"] == pair["tasks"]["tulu3_safety"]["d"]


def test_pairs_keep_to_their_budget(store):
    made = build.load(store)
    cost = len(made.rows[0].cells) + len(made.rows[3].cells)
    few, problems = comparisons.compare(made, cost + 1)
    assert [(pair.baseline, pair.candidate) for pair in few] == [(3, 0)] and not problems


def test_rank_intervals():
    assert marks.ranks([(0.9, 0.01), (0.5, 0.01), (0.51, 0.01), None]) == [(1, 1), (2, 3), (2, 3), None]


def test_differs_looks_over_rows_without_a_score():
    rows = [
        Row("a", "a", "measured", cells={"t": Cell(0.5, fingerprint=("p", "d", "s", "g"))}),
        Row("b", "b", "measured"),
        Row("c", "c", "imported", cells={"t": Cell(0.5)}),
        Row("d", "d", "measured", cells={"t": Cell(0.5, fingerprint=("p", "d", "x", "g"))}),
    ]
    assert marks.differs(rows[3].cells["t"], marks.nearest_above(rows, 3, "t")) == ["scorer"]
    assert marks.differs(rows[2].cells["t"], marks.nearest_above(rows, 2, "t")) == []


def test_published_rows(store):
    rows = {row.name: row for row in published.rows()}
    final = rows["Tülu 3 8B"]
    assert final.cells["tulu3_gsm8k"].value == 0.876 and final.suites["unseen"].value == 0.342
    assert "MICE" in rows["GPT-4o mini"].cells["tulu3_bbh"].note
    shown = built(store, "--published", "--instances", "none")
    assert shown.rows["published: Tülu 3 8B"]["tulu3_gsm8k"]["data-flags"] == "published"
    assert shown.rows["published: Tülu 3 8B"]["tulu3_gsm8k"]["data-lo"] == ""
    assert list(shown.rows)[:7] == [run["run"] for run in shown.data["runs"] if run["kind"] == "measured"]


@pytest.mark.parametrize("name", [row.name for row in published.rows() if "dev" in row.suites])
def test_published_averages_are_those_of_their_tasks(name):
    """A slip of the keyboard in published.yaml moves a mean away from the average that the paper prints."""
    (row,) = [row for row in published.rows() if row.name == name]
    unseen = {task for task, _ in UNSEEN} | {"tulu3_gpqa", "tulu3_href"}
    for suite, inside in (("dev", False), ("unseen", True)):
        own = [c.value for t, c in row.cells.items() if (t in unseen) == inside and not t.startswith("tulu3_safety_")]
        if suite in row.suites and (name, suite) != ("Llama 3.1 8B Instruct", "unseen"):  # the paper's own slip
            assert sum(own) / len(own) == pytest.approx(row.suites[suite].value, abs=0.0016)


def test_bad_runs_are_listed_and_the_page_stands(tmp_path, capsys):
    runs = tmp_path / "runs"
    make(runs, Made("good", "m", ONE))
    for name, text in {
        "torn": "{", "list": "[]", "newer": '{"schema": "2.0"}', "hollow": '{"schema": "1.0"}',
        "nan": '{"schema": "1.0", "run": "nan", "model": "m", "suites": {}, "tasks": '
               '{"t": {"n": 3, "primary": "x", "flags": {}, "metrics": {"x": {"value": "<b>", "stderr": 0}}}}}',
    }.items():  # fmt: skip
        (runs / name).mkdir()
        (runs / name / "results.json").write_text(text)
        (runs / name / "manifest.json").write_text('{"schema": "1.0", "plan": [{"task": "t"}], "engine": {}}')
    (runs / "empty").mkdir()
    (runs / ".unfinished/half").mkdir(parents=True)
    (runs / "floors.json").write_text("[")
    (runs / "unseen-ledger.jsonl").write_text('{"torn\n[1]\n')
    shown = built(runs)
    assert list(shown.rows) == ["good"]
    reasons = {problem["run"]: problem["reason"] for problem in shown.data["problems"]}
    assert reasons.keys() == {"torn", "list", "newer", "hollow", "nan", "empty", "half", "floors.json"}
    assert "newer olmes-suite" in reasons["newer"] and "not finished" in reasons["half"]
    assert "Traceback" not in capsys.readouterr().err


def places(value, path=()):
    """The paths of all fields of a JSON object."""
    for key, inner in value.items():
        yield (*path, key)
        if isinstance(inner, dict):
            yield from places(inner, (*path, key))


@pytest.mark.long
@pytest.mark.parametrize("file", ["results.json", "manifest.json"])
@pytest.mark.parametrize("wrong", [5, "x", [], {}, None, [{"a": 1}]], ids=str)
def test_no_field_of_one_run_loses_the_page(tmp_path, file, wrong):
    runs = tmp_path / "runs"
    own = (("own_task", "math"),)
    about = {"parent": "good", "stage": "sft", "step": 3, "data": [], "flags": {"own_task": [1]}, "watch": ["no_end"]}
    make(runs, Made("good", "good", own, n=5, started=2.0))
    make(runs, Made("bad", "bad", own, n=5, started=1.0, lineage=about, dirty=0.5, suites={"dev": ["own_task"]}))
    whole = (runs / "bad" / file).read_text()
    for number, place in enumerate(places(json.loads(whole))):
        changed = inner = json.loads(whole)
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = wrong
        shutil.copytree(runs / "bad", runs / f"bad-{number}")
        (runs / f"bad-{number}" / file).write_text(json.dumps(changed))
    assert "good" in built(runs).rows


def test_what_the_watch_over_a_training_named_stands_in_its_row(tmp_path):
    runs = tmp_path / "runs"
    watch = ["no_end: in 3 rollouts in a row <b>", "repeated: 90 % of the responses"]
    make(runs, Made("good", "a", ONE, started=2.0))
    make(runs, Made("bad", "b", ONE, started=1.0, lineage={"parent": "a", "stage": "rlvr", "step": 9, "watch": watch}))
    shown = built(runs)
    ((_, found),) = [tag for tag in shown.tags if tag[1].get("class") == "tag watch"]
    assert found["title"] == "\n".join(watch) and "no end, repeated</span>" in shown.text
    assert [run.get("watch") for run in shown.data["runs"]] == [None, watch]
    assert "the watch over the training named" in shown.text


def test_a_run_without_documents_keeps_its_row(tmp_path):
    runs = tmp_path / "runs"
    make(runs, Made("good", "a", ONE, started=2.0, responses=50))
    make(runs, Made("bare", "b", ONE, started=1.0, files=False))
    shown = built(runs)
    assert list(shown.rows) == ["good", "bare"]
    assert any(problem["run"] == "bare" for problem in shown.data["problems"])
    assert "chunk-c0-0" in shown.scripts and "chunk-c1-0" not in shown.scripts


def test_a_cell_has_the_first_prompt_as_the_model_received_it(tmp_path):
    runs = tmp_path / "runs"
    for name, started in (("good", 2.0), ("damaged", 1.0)):
        folder = make(runs, Made(name, name, ONE, started=started, responses=50))
        first = FirstPrompt(doc_id=3, rendered="<|user|>\nhow many", prompt_tokens=9)
        write_prompts(folder, Prompts(run=name, tasks={ONE[0][0]: first, "tulu3_other": first}))
    (runs / "damaged/prompts.json").write_text("{")
    shown = built(runs)
    assert shown.chunk("c0-0")["sent"] == {ONE[0][0]: [3, "<|user|>\nhow many", 9]}
    assert shown.chunk("c1-0")["sent"] == {} and shown.chunk("c1-0")["docs"]


@pytest.mark.long
def test_flips_embed_only_what_runs_disagree_on(store, family_page):
    shown = built(store, "--instances", "flips")
    whole, moved = (p.chunk("c0-0")["docs"] for p in (family_page, shown))
    assert 0 < len(moved) < len(whole)
    ids = {doc[1] for doc in moved}
    by_run = [{doc[1]: doc[2] for doc in family_page.chunk(f"c{at}-0")["docs"]} for at in range(7)]
    assert ids == {i for i in by_run[0] if len({scores[i] for scores in by_run}) > 1}
    assert not any(name.startswith("chunk-c") for name in built(store, "--instances", "none").scripts)


def test_each_prompt_stands_once(store, family_page):
    sets = [name for name in family_page.scripts if name.startswith("chunk-p") and name != "chunk-pairs"]
    assert len(sets) == len(family_page.data["tasks"])  # seven rows share them


def test_by_default_large_boards_embed_no_documents(store, monkeypatch):
    made = build.load(store)
    assert build.choose(made, None) == "all"
    monkeypatch.setattr(build, "CELLS", 10)
    assert build.choose(made, None) == "none" and build.choose(made, "flips") == "flips"


def test_hostile_text_changes_nothing(tmp_path):
    runs = tmp_path / "runs"
    made = Made(
        "hostile",
        HOSTILE,
        ONE,
        text=HOSTILE * 3 + "x" * 1_000_000,
        lineage={"parent": HOSTILE, "stage": HOSTILE, "recipe": HOSTILE},
    )
    make(runs, replace(made, name="host<b>ile"))
    (runs / "x<img src=x onerror=ran=3>").mkdir()
    shown = built(runs)
    own = [
        (tag, found) for tag, found in shown.tags if tag in ("img", "iframe") or any(k.startswith("on") for k in found)
    ]
    assert not own
    assert [tag for tag, found in shown.tags if tag == "script" and "type" not in found] == ["script"]
    assert len(shown.text) < 400_000  # a line of 1 MB is cut
    assert shown.chunk("c0-0")["docs"][0][6][0].startswith("</script><img")
    assert shown.data["runs"][0]["model"].startswith("</script><img") is False or "\\u003c" in shown.text


def test_the_policy_allows_the_pages_own_script_alone(family_page):
    import hashlib

    (policy,) = [
        found["content"] for tag, found in family_page.tags if found.get("http-equiv") == "Content-Security-Policy"
    ]
    script = re.search(r"<script>(.*?)</script>", family_page.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy and "unsafe" not in policy
    assert "http" not in re.sub(
        r'http-equiv|"http://www.w3.org/2000/svg"', "", family_page.text.split('id="olmes-data"')[0]
    )
    assert not re.search(r"\b(innerHTML|outerHTML|insertAdjacentHTML|eval|Function)\b", script)


def test_imported_runs(tmp_path, capsys):
    scores = tmp_path / "s.jsonl"
    scores.write_text(
        "".join(json.dumps({"task": "team <eval>", "doc_id": f"d{i}", "score": i / 10}) + "\n" for i in range(10))
    )
    runs = str(tmp_path / "runs")
    for name in ("one", "two"):
        assert olmes(["import", "scores", str(scores), "--name", name, "--runs", runs]) == 0
    shown = built(tmp_path / "runs")
    assert flags(shown, "one", "team <eval>") == ["imported"]
    assert float(shown.rows["two"]["team <eval>"]["data-value"]) == pytest.approx(0.45)
    (pair,) = shown.chunk("pairs")
    assert pair["tasks"]["team <eval>"]["d"] == 0


def test_usage(tmp_path, capsys):
    out = str(tmp_path / "b.html")
    assert olmes(["leaderboard", "--runs", str(tmp_path / "nowhere"), "--out", out]) == 2
    (tmp_path / "runs").mkdir()
    assert olmes(["leaderboard", "--runs", str(tmp_path / "runs"), "--out", out, "--instances", "some"]) == 2
    assert olmes(["leaderboard", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 3
    assert olmes(["leaderboard", "--runs", str(tmp_path / "runs"), "--out", out]) == 0
    assert "No finished run yet" in Path(out).read_text()


def test_json_output(store, tmp_path, capsys):
    capsys.readouterr()
    assert olmes(["leaderboard", "--runs", str(store), "--out", str(tmp_path / "b.html"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 7 and told["tasks"] == 14 and told["bytes"] > 1000


def test_watch_sees_new_runs(tmp_path):
    runs = tmp_path / "runs"
    make(runs, Made("a", "m", ONE))
    before = build.state(runs)
    assert build.state(runs) == before
    make(runs, Made("b", "n", ONE))
    assert build.state(runs) != before


@pytest.mark.long
def test_the_same_store_gives_the_same_page(store, tmp_path):
    for name in ("a", "b"):
        build.build(store, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_names_of_checkpoints_keep_their_folder():
    assert reading._model_name("checkpoint-500", "out/my-sft/checkpoint-500") == "my-sft/checkpoint-500"
    assert reading._model_name("my-sft", "out/my-sft") == "my-sft"


def test_texts_and_packing():
    assert table.visible("a\x00b\ud800" + "c" * 300).startswith("a\ufffdb")
    assert instances._cut("x" * (instances.LONGEST + 7)).endswith("… [7 more characters are in the run's files]")
    assert json.loads(zlib.decompress(base64.b64decode(instances.pack({"a": "ü\ud800"})), -15)) == {"a": "ü?"}
    assert board.checkpoints([]) == []
