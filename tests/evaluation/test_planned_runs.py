"""Runs of a plan: what they ask, how they weigh, what they project, and what a later run asks."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import yaml
from helpers import as_json, olmes_here, one_line_error, write_gsm8k

from olmes_suite import api, stats
from olmes_suite.cli.main import run as olmes
from olmes_suite.comparison import gate_rules
from olmes_suite.comparison.compare import compare_task
from olmes_suite.errors import UsageError
from olmes_suite.evaluation.plan import Leaf, by_strata, limited
from olmes_suite.evaluation.record import combine
from olmes_suite.evaluation.until_decided import Decider
from olmes_suite.models.without_model.mock import MockBackend
from olmes_suite.runs.scores import read_run

MIXED = {"gen_kwargs": "temperature=1", "samples": 5}
"""Answers of the mock model that are sometimes right."""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "mine.yaml"
    path.write_text("suite: mine\ntasks:\n  - {task: gsm8k, skill: math}\n")
    return path


def plan_of(path: Path, suite: Path, documents: int, of: int = 40, **more: Any) -> Path:
    known = {"revision": "740312add88f781978c0658806c59bc2815b9866", "version": 1.0}
    task = {"documents": documents, "of": of, **known, **more}
    path.write_text(yaml.safe_dump({"plan": 1, "suite": str(suite), "tasks": {"tulu3_gsm8k": task}}))
    return path


def run(runs: Path, mirror: Path, **options: Any) -> api.Evaluated:
    return api.evaluate(**{"backend": "mock", "data_dir": mirror, "runs": runs, **MIXED, **options})


def asked_of(found: api.Evaluated) -> set[int]:
    lines = (found.path / "responses/tulu3_gsm8k.jsonl").read_text().splitlines()
    return {json.loads(line)["doc_id"] for line in lines}


class TestSelection:
    """Which documents are asked."""

    def test_plans_nest_in_the_order_of_limits(self, tmp_path: Path, gsm8k_mirror: Path, suite: Path) -> None:
        small = run(tmp_path / "a", gsm8k_mirror, plan=plan_of(tmp_path / "s.yaml", suite, 7))
        large = run(tmp_path / "b", gsm8k_mirror, plan=plan_of(tmp_path / "l.yaml", suite, 20))
        same = run(tmp_path / "c", gsm8k_mirror, task="gsm8k", limit=20)
        assert asked_of(small) < asked_of(large) == asked_of(same)
        assert len(asked_of(small)) == 7

    def test_strata_get_their_share(self) -> None:
        class Rows(list[dict[str, Any]]):
            column_names = ("kind",)

        rows = Rows({"kind": "rare" if i % 20 == 0 else "common"} for i in range(400))
        task = SimpleNamespace(task_docs=rows, keys=SimpleNamespace(strata="kind"))
        leaf = Leaf("t", cast(Any, task), range(400))
        chosen = {count: by_strata(leaf, count, 1) for count in (1, 10, 60, 399, 400)}
        kinds = {count: Counter(rows[i]["kind"] for i in found) for count, found in chosen.items()}
        assert kinds[1] == {"rare": 1, "common": 1}  # a stratum without documents would have no score
        assert kinds[10] == {"rare": 5, "common": 5} and kinds[60] == {"rare": 20, "common": 40}
        assert set(chosen[10]) < set(chosen[60]) < set(chosen[400])
        task.keys.strata = None
        assert by_strata(leaf, 50, 1) == limited(leaf, 50, 1)

    def test_documents_of_a_micro_average_weigh_by_what_they_stand_for(self) -> None:
        leaves = [
            Leaf(name, cast(Any, SimpleNamespace(task_docs=range(size))), range(rows))
            for name, size, rows in (("a", 400, 40), ("b", 100, 50))
        ]
        values = [{"m": stats.Estimate(0.8, 0.05)}, {"m": stats.Estimate(0.3, 0.05)}]

        def value(planned: bool) -> float:
            weights = [leaf.weight(len(leaf.rows), planned) for leaf in leaves]
            return combine("micro", list(zip(values, weights, strict=True)))["m"].value

        assert value(True) == pytest.approx(0.7)
        assert value(False) == pytest.approx((40 * 0.8 + 50 * 0.3) / 90)


class TestRecords:
    """What a planned run records and what a later run asks."""

    def test_planned_runs_are_marked_and_projected(self, tmp_path: Path, gsm8k_mirror: Path, suite: Path) -> None:
        full = run(tmp_path / "base", gsm8k_mirror, suite=str(suite))
        plan = plan_of(tmp_path / "p.yaml", suite, 12)
        found = run(tmp_path / "runs", gsm8k_mirror, plan=plan)
        assert found.results.tasks["tulu3_gsm8k"].planned and found.results.tasks["tulu3_gsm8k"].of == 40
        assert found.results.suites["mine"].planned and found.results.tasks["tulu3_gsm8k"].projected is None
        manifest = found.finished.manifest
        assert manifest.planned is not None and manifest.planned.documents == {"tulu3_gsm8k": 12}
        again = run(tmp_path / "runs", gsm8k_mirror, plan=plan, baseline=full.path)
        assert again.path == found.path
        projected = again.results.tasks["tulu3_gsm8k"].projected
        whole = full.results.tasks["tulu3_gsm8k"].score
        assert projected is not None and whole is not None and projected.baseline == full.path.name
        assert projected.value == pytest.approx(whole.value)  # the same answers: no difference
        assert (projected.n, projected.of, projected.stderr) == (12, 40, 0)
        assert again.results.suites["mine"].projected is not None
        assert read_run(again.path).tasks["tulu3_gsm8k"].planned
        shown = olmes_here("compare", full.path, again.path, tmp=tmp_path).stdout
        assert "gsm8k: projected on all 40 documents from 12:" in shown
        rescored = as_json(olmes_here("score", again.path, "--data-dir", gsm8k_mirror, "--json", tmp=tmp_path))
        assert rescored["tasks"]["tulu3_gsm8k"]["projected"]["value"] == pytest.approx(whole.value)

    def test_a_later_run_asks_only_the_others(
        self, tmp_path: Path, gsm8k_mirror: Path, suite: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alone = run(tmp_path / "alone", gsm8k_mirror, suite=str(suite))
        asked: Counter[int] = Counter()
        plain = MockBackend.run

        def counted(self: MockBackend, requests: Any, seeds: Any) -> Any:
            asked.update(request.doc_id for request in requests)
            return plain(self, requests, seeds)

        monkeypatch.setattr(MockBackend, "run", counted)
        small = run(tmp_path / "runs", gsm8k_mirror, plan=plan_of(tmp_path / "s.yaml", suite, 7))
        large = run(tmp_path / "runs", gsm8k_mirror, plan=plan_of(tmp_path / "l.yaml", suite, 20))
        full = run(tmp_path / "runs", gsm8k_mirror, suite=str(suite))
        assert asked == dict.fromkeys(range(40), 1)
        assert len({small.path, large.path, full.path}) == 3
        for name in ("results.json", "responses/tulu3_gsm8k.jsonl"):
            assert (full.path / name).read_bytes() == (alone.path / name).read_bytes()
        run(tmp_path / "runs", gsm8k_mirror, suite=str(suite), gen_kwargs="temperature=0.5")
        assert sum(asked.values()) == 80  # other settings: nothing is used

    def test_a_smaller_plan_leaves_the_other_answers(self, tmp_path: Path, gsm8k_mirror: Path, suite: Path) -> None:
        plan = plan_of(tmp_path / "s.yaml", suite, 7)
        run(tmp_path / "runs", gsm8k_mirror, plan=plan_of(tmp_path / "l.yaml", suite, 20))
        small, alone = (run(tmp_path / name, gsm8k_mirror, plan=plan) for name in ("runs", "alone"))
        file = "responses/tulu3_gsm8k.jsonl"
        assert (small.path / file).read_bytes() == (alone.path / file).read_bytes()
        assert small.finished.manifest.tokens == alone.finished.manifest.tokens

    def test_a_plan_chooses_samples(self, tmp_path: Path, gsm8k_mirror: Path, suite: Path) -> None:
        sampled = {"backend": "mock", "data_dir": gsm8k_mirror, "gen_kwargs": "temperature=1"}
        found = api.evaluate(**sampled, runs=tmp_path, plan=plan_of(tmp_path / "p.yaml", suite, 9, samples=3))
        task = found.results.tasks["tulu3_gsm8k"]
        assert (task.n, task.samples) == (9, 3)
        same = api.evaluate(**sampled, runs=tmp_path / "b", task="gsm8k", samples=3, limit=9)
        assert same.finished.manifest.tasks == found.finished.manifest.tasks
        with pytest.raises(UsageError, match="leave --samples out"):
            run(tmp_path, gsm8k_mirror, plan=tmp_path / "p.yaml")
        with pytest.raises(UsageError, match="samples must be at least 1"):
            run(tmp_path, gsm8k_mirror, plan=plan_of(tmp_path / "n.yaml", suite, 9, samples=0))

    def test_olmes_plan_writes_the_samples(
        self, tmp_path: Path, mirror: Path, suite: Path, full: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        del mirror
        command = ["plan", "--suite", str(suite), "--baseline", str(full)]
        assert olmes([*command, "--tokens", "10k", "--choose-samples", "--out", str(tmp_path / "p.yaml")]) == 0
        assert "gsm8k: 2 of 5 samples; the score does not compare with one of 5" in capsys.readouterr().out
        assert yaml.safe_load((tmp_path / "p.yaml").read_text())["tasks"]["tulu3_gsm8k"]["samples"] == 2
        for options, words in (
            (["--detect", "5", "--baseline", str(full)], "leave --choose-samples out"),
            (["--tokens", "9k"], "--choose-samples needs --baseline"),
        ):
            assert olmes(["plan", "--suite", str(suite), *options, "--choose-samples"]) == 2
            assert words in capsys.readouterr().err

    def test_names_of_other_runs_do_not_move(self, tmp_path: Path, gsm8k_mirror: Path) -> None:
        found = api.evaluate(backend="mock", task="gsm8k", data_dir=gsm8k_mirror, runs=tmp_path, limit=10)
        content = json.loads((found.path / "results.json").read_text())
        assert "planned" not in json.dumps(content) and "projected" not in json.dumps(content)
        assert "planned" not in json.loads((found.path / "manifest.json").read_text())


class TestBadInput:
    """One line, before a request is sent."""

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"of": 41}, "40 documents here and 41 in the plan"),
            ({"revision": "main"}, "the plan is of data revision main"),
            ({"version": 2.0}, "the plan is of version 2.0"),
            ({"data": "0" * 64}, "the documents of tulu3_gsm8k are not those of its baseline"),
            ({"documents": 0}, "documents must be from 1 to 40, not 0"),
            ({"documents": "many"}, "documents"),
        ],
    )
    def test_a_plan_of_other_data(
        self, tmp_path: Path, gsm8k_mirror: Path, suite: Path, change: dict[str, Any], words: str
    ) -> None:
        plan = plan_of(tmp_path / "p.yaml", suite, **{"documents": 5, **change})
        with pytest.raises(UsageError, match=words):
            run(tmp_path, gsm8k_mirror, plan=plan)

    def test_a_plan_that_does_not_fit_the_command(self, tmp_path: Path, gsm8k_mirror: Path, suite: Path) -> None:
        plan = plan_of(tmp_path / "p.yaml", suite, 5)
        other = tmp_path / "other.yaml"
        other.write_text("a: 1\n")
        old = tmp_path / "old.yaml"
        old.write_text("plan: 7\nsuite: dev\ntasks: {}\n")
        dev = tmp_path / "dev.yaml"
        dev.write_text(plan.read_text().replace(str(suite), "dev"))
        command = ("eval", "--backend", "mock", "--data-dir", gsm8k_mirror, "--runs", tmp_path)
        for options, words in (
            (("--plan", plan, "--suite", "dev"), "is a plan of suite"),
            (("--plan", plan, "--limit", "3"), "leave --limit out"),
            (("--plan", plan, "--task", "gsm8k"), "leave --task out"),
            (("--plan", other), "is not a plan"),
            (("--plan", tmp_path / "none.yaml"), "cannot be read"),
            (("--plan", old), "version 7"),
            (("--plan", dev), "which is not in the plan"),
        ):
            assert words in one_line_error(olmes_here(*command, *options, tmp=tmp_path))

    def test_a_baseline_that_cannot_serve(self, tmp_path: Path, gsm8k_mirror: Path, suite: Path) -> None:
        plan = plan_of(tmp_path / "p.yaml", suite, 5)
        part = run(tmp_path, gsm8k_mirror, plan=plan)
        limited_run = run(tmp_path, gsm8k_mirror, task="gsm8k", limit=10)
        other = run(tmp_path, gsm8k_mirror, task="gsm8k", gen_kwargs="temperature=0.5")
        full = run(tmp_path, gsm8k_mirror, task="gsm8k")
        command = ("eval", "--backend", "mock", "--data-dir", gsm8k_mirror, "--runs", tmp_path, "--gen-kwargs",
                   "temperature=1", "--samples", "5")  # fmt: skip
        for options, words, status in (
            (("--plan", plan, "--baseline", part.path.name), "does not have all documents", 2),
            (("--plan", plan, "--baseline", limited_run.path.name), "does not have all documents", 2),
            (("--plan", plan, "--baseline", "nobody"), "no run 'nobody'", 2),
            (("--plan", plan, "--baseline", other.path.name), "settings differ", 4),
            (("--task", "gsm8k", "--baseline", full.path.name), "give --plan or --limit", 2),
        ):
            assert words in one_line_error(olmes_here(*command, *options, tmp=tmp_path), status)
        done = as_json(olmes_here(*command, "--task", "gsm8k", "--limit", "8", "--baseline", full.path.name, "--json",
                                  tmp=tmp_path))  # fmt: skip
        assert done["tasks"]["tulu3_gsm8k"]["projected"]["n"] == 8


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gsm8k(tmp_path_factory.mktemp("large"), 400)


@pytest.fixture(scope="module")
def full(mirror: Path, suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("full"), mirror, suite=str(suite)).path


WIDE = {"margin": 3}


class TestUntilDecided:
    """Runs that ask until the gate is decided."""

    def test_the_run_stops_records_its_looks_and_the_gate_repeats_the_verdict(
        self, tmp_path: Path, mirror: Path, suite: Path, full: Path
    ) -> None:
        found = run(tmp_path, mirror, suite=str(suite), until_decided=True, baseline=full, config=WIDE)
        stopped = found.results.stopped
        assert stopped is not None and stopped.verdict == "pass" and stopped.of == 400
        assert stopped.documents == len(asked_of(found)) < 350
        assert [look.verdict for look in stopped.looks] == ["continue"] * (len(stopped.looks) - 1) + ["pass"]
        assert [look.documents for look in stopped.looks] == sorted({look.documents for look in stopped.looks})
        assert (
            stopped.tokens
            == stopped.looks[-1].tokens
            == sum((found.finished.manifest.tokens or {}).values()) - (found.finished.manifest.tokens or {})["prompt"]
        )
        task = found.results.tasks["tulu3_gsm8k"]
        assert task.planned and task.n == stopped.documents and task.projected is not None
        gated = api.gate(full, found.path, config=WIDE)
        assert (gated.verdict, gated.exit) == ("pass", 0)
        assert any(note.startswith("decided after") for note in gated.report.notes)
        other = api.gate(full, found.path, margin=2)
        assert any("other rules" in note for note in other.report.notes)
        rescored = as_json(olmes_here("score", found.path, "--data-dir", mirror, "--json", tmp=tmp_path))
        assert rescored["stopped"]["verdict"] == "pass"

    @pytest.mark.long
    def test_a_killed_run_takes_the_same_looks(
        self, tmp_path: Path, mirror: Path, suite: Path, full: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        options: dict[str, Any] = {"suite": str(suite), "until_decided": True, "baseline": full, "config": WIDE}
        whole = run(tmp_path / "whole", mirror, **options)
        plain, asked = MockBackend.run, Counter[int]()
        most = 500

        def counted(self: MockBackend, requests: Any, seeds: Any) -> Any:
            for position, sample, response in plain(self, requests, seeds):
                asked[requests[position].doc_id] += 1
                yield position, sample, response
                if sum(asked.values()) == most:
                    raise KeyboardInterrupt

        monkeypatch.setattr(MockBackend, "run", counted)
        with pytest.raises(Exception, match="interrupted"):
            run(tmp_path / "broken", mirror, **options)
        most = 0
        found = run(tmp_path / "broken", mirror, **options)
        assert (found.path / "results.json").read_bytes() == (whole.path / "results.json").read_bytes()
        assert set(asked.values()) == {5}  # five samples of each document, none twice

    def test_a_drop_is_red(
        self, tmp_path: Path, mirror: Path, suite: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        right = {"backend": "oracle", "data_dir": mirror, "suite": str(suite)}
        best = api.evaluate(**right, runs=tmp_path / "best")  # type: ignore[arg-type]
        worse = {**right, "backend": "mock", "runs": tmp_path, "until_decided": True, "baseline": best.path}
        found = api.evaluate(**worse)  # type: ignore[arg-type]
        stopped = found.results.stopped
        assert stopped is not None and stopped.verdict == "fail" and stopped.failed == ("tulu3_gsm8k", "")
        assert (stopped.documents, len(stopped.looks)) == (50, 1)
        done = olmes_here(
            "eval", "--backend", "mock", "--suite", suite, "--data-dir", mirror, "--runs", tmp_path,
            "--until-decided", "--baseline", best.path, tmp=tmp_path,
        )  # fmt: skip
        assert done.returncode == 1 and "stopped early after 1 look: fail" in done.stdout

    def test_a_part_of_the_baselines_name_may_be_in_the_new_runs_name_too(
        self, tmp_path: Path, mirror: Path, suite: Path, full: Path
    ) -> None:
        shutil.copytree(full, tmp_path / "runs" / full.name)
        (tmp_path / "gate.yaml").write_text("margin: 3\n")
        done = olmes_here(
            "eval", "--backend", "mock", "--suite", suite, "--data-dir", mirror, "--gen-kwargs", "temperature=1",
            "--samples", "5", "--until-decided", "--baseline", "mock-mine", "--runs", tmp_path / "runs",
            "--config", tmp_path / "gate.yaml", tmp=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0 and "stopped early" in done.stdout, done.stderr
        assert len(list((tmp_path / "runs").glob("mock-mine-*"))) == 2

    def test_a_stopped_run_is_completed_later(
        self, tmp_path: Path, mirror: Path, suite: Path, full: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: Counter[int] = Counter()
        plain = MockBackend.run

        def counted(self: MockBackend, requests: Any, seeds: Any) -> Any:
            asked.update(request.doc_id for request in requests)
            return plain(self, requests, seeds)

        monkeypatch.setattr(MockBackend, "run", counted)
        part = run(tmp_path, mirror, suite=str(suite), until_decided=True, baseline=full, config=WIDE)
        first = set(asked)
        assert first == asked_of(part) and len(first) < 400
        whole = run(tmp_path, mirror, suite=str(suite))
        assert set(asked) == set(range(400)) and set(asked.values()) == {1}
        assert whole.results.stopped is None and not whole.results.tasks["tulu3_gsm8k"].planned
        assert (whole.path / "results.json").read_bytes() == (full / "results.json").read_bytes()

    @pytest.mark.long
    def test_answers_of_a_larger_plan_are_not_counted(
        self, tmp_path: Path, mirror: Path, suite: Path, full: Path
    ) -> None:
        run(tmp_path / "after", mirror, plan=plan_of(tmp_path / "l.yaml", suite, 350, of=400))
        options: dict[str, Any] = {"suite": str(suite), "until_decided": True, "baseline": full, "config": WIDE}
        after, alone = (run(tmp_path / name, mirror, **options) for name in ("after", "alone"))
        for file in ("results.json", "responses/tulu3_gsm8k.jsonl"):
            assert (after.path / file).read_bytes() == (alone.path / file).read_bytes()
        assert after.finished.manifest.tokens == alone.finished.manifest.tokens

    def test_what_is_refused_is_one_line(
        self, tmp_path: Path, mirror: Path, suite: Path, full: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        part = run(tmp_path, mirror, suite=str(suite), until_decided=True, baseline=full, config=WIDE).path
        other = run(tmp_path, mirror, suite=str(suite), gen_kwargs="temperature=0.5").path
        rules = {
            "other.yaml": "tasks: {mmlu: {required: true}}", "noise.yaml": "noise: measured", "list.yaml": "- 1",
        }  # fmt: skip
        for name, text in rules.items():
            (tmp_path / name).write_text(text)
        bare = tmp_path / "bare"
        shutil.copytree(full, bare)
        shutil.rmtree(bare / "instances")
        command = ["eval", "--backend", "mock", "--suite", str(suite), "--data-dir", str(mirror), "--runs",
                   str(tmp_path), "--gen-kwargs", "temperature=1", "--samples", "5", "--until-decided"]  # fmt: skip
        for options, words, status in (
            (["--baseline", str(part)], "repeat its command without --until-decided", 2),
            (["--baseline", str(other)], "settings differ", 4),
            (["--baseline", str(bare)], "bare", 2),
            (["--baseline", str(full), "--config", str(tmp_path / "other.yaml")], "mmlu, which is not in the suite", 2),
            (["--baseline", str(full), "--config", str(tmp_path / "noise.yaml")], "'measured'", 2),
            (["--baseline", str(full), "--config", str(tmp_path / "list.yaml")], "list.yaml", 2),
            (["--baseline", str(full), "--config", str(tmp_path / "none.yaml")], "cannot be read", 2),
            (["--baseline", str(full), "--task", "gsm8k"], "takes one --suite", 2),
        ):
            before = sorted(tmp_path.iterdir())
            assert olmes([*command, *options]) == status, words
            out, err = capsys.readouterr()
            lines = [line for line in err.splitlines() if line.startswith("olmes: ")]
            assert len(lines) == 1 and words in lines[0] and "Traceback" not in err and not out, err
            assert sorted(tmp_path.iterdir()) == before
        for purpose in (["--detect", "3"], ["--gate", str(tmp_path / "noise.yaml")]):
            assert olmes(["plan", "--suite", str(suite), *purpose, "--baseline", str(part)]) == 2
            assert "does not have all documents of gsm8k" in capsys.readouterr().err

    def test_a_local_judge_beside_vllm_is_refused(
        self, tmp_path: Path, mirror: Path, suite: Path, full: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("olmes_suite.evaluation.until_decided.automatic", lambda: "vllm")
        options = {"suite": str(suite), "until_decided": True, "baseline": full, "config": WIDE}
        with pytest.raises(UsageError, match="give --judge-base-url"):
            run(tmp_path, mirror, **options, judge="org/judge")
        assert run(tmp_path, mirror, **options, judge="judge", judge_base_url="http://localhost:1/v1").results.stopped

    def test_published_noise_widens_the_margins_of_the_looks(self, full: Path, suite: Path) -> None:
        rules = gate_rules.parse_rules({"noise": "published", "margin": 0.1}, "gate.yaml")
        assert rules.noise_of("olmo3_gpqa") == pytest.approx(0.0148) and rules.noise_of("tulu3_gsm8k") == 0
        options = SimpleNamespace(suite_names=(str(suite),), seed=1)
        decider = Decider(cast(Any, options), replace(rules, margin=0.001), read_run(full))
        task = replace(decider.plans[-1].tasks[0].task, name="olmo3_gpqa")
        decider.baseline = replace(decider.baseline, tasks={"olmo3_gpqa": decider.baseline.tasks["tulu3_gsm8k"]})
        entry = SimpleNamespace(task="olmo3_gpqa", skill="knowledge")
        assert decider._target(task, cast(Any, SimpleNamespace(tasks=[entry]))).margin == pytest.approx(0.0148)

    def test_unequal_strata_reach_the_end(self, full: Path, suite: Path) -> None:
        baseline = read_run(full)
        task = baseline.tasks["tulu3_gsm8k"]
        (leaf,) = task.leaves.values()
        strata = np.where(np.arange(400) < 40, 0, 1)  # two strata of equal weight, 40 and 360 documents
        right = np.arange(400) % 2.0
        before, after = (
            replace(task, leaves={task.name: replace(leaf, strata=strata, scores=values)})
            for values in (right, np.where(np.arange(400) % 7 == 0, 1 - right, right))
        )
        options = SimpleNamespace(suite_names=(str(suite),), seed=1)
        decider = Decider(cast(Any, options), gate_rules.Rules(), replace(baseline, tasks={task.name: before}))
        assert decider.looks.look([compare_task(before, after)]).verdict == "inconclusive"

    def test_the_gate_says_where_other_margins_of_a_task_decide(
        self, tmp_path: Path, mirror: Path, suite: Path, full: Path
    ) -> None:
        found = run(tmp_path, mirror, suite=str(suite), until_decided=True, baseline=full, config=WIDE)
        for rules, other in (({**WIDE, "tasks": {"gsm8k": {"margin": 4}}}, True), (WIDE, False),
                             ({**WIDE, "tasks": {"gsm8k": {"required": True}}}, True)):  # fmt: skip
            notes = api.gate(full, found.path, config=rules).report.notes
            assert any("other rules" in note for note in notes) is other

    def test_what_does_not_go_together(self, tmp_path: Path, mirror: Path, suite: Path, full: Path) -> None:
        for options, words in (
            ({"until_decided": True}, "needs --baseline"),
            ({"until_decided": True, "baseline": full, "limit": 5}, "takes one --suite"),
            ({"config": {"margin": 1}}, "give both"),
            ({"until_decided": True, "baseline": full, "config": {"margn": 1}}, "margn"),
            ({"until_decided": True, "baseline": full, "suite": "smoke"}, "has no score of"),
        ):
            with pytest.raises(UsageError, match=words):
                run(tmp_path, mirror, **{"suite": str(suite), **options})
