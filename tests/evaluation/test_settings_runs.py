"""Runs with settings over those of the tasks: names, records, comparisons, samples."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import as_json, olmes_here, one_line_error

from olmes_suite import api
from olmes_suite.errors import UsageError
from olmes_suite.models.without_model.mock import MockBackend
from olmes_suite.runs.schema import read_manifest


def run(store: Path, mirror: Path, **options: Any) -> api.Evaluated:
    """A run of the mock model on gsm8k."""
    return api.evaluate(
        **{"backend": "mock", "task": "gsm8k", "data_dir": mirror, "runs": store, "limit": 10, **options}
    )


def fingerprint(evaluated: api.Evaluated) -> dict[str, str]:
    return dict(read_manifest(evaluated.path).tasks["tulu3_gsm8k"] or {})


class TestRecord:
    """Names, fingerprints and manifests."""

    def test_only_what_changes_answers_moves_the_fingerprint(self, tmp_path: Path, gsm8k_mirror: Path) -> None:
        plain = run(tmp_path, gsm8k_mirror)
        same = run(tmp_path, gsm8k_mirror, gen_kwargs="temperature=0,max_tokens=512", samples=1)
        assert same.path == plain.path
        changes: list[dict[str, Any]] = [
            {"gen_kwargs": "temperature=0.6"}, {"gen_kwargs": "max_tokens=context"}, {"profile": "olmo3"},
            {"gen_kwargs": "temperature=0.6", "samples": 2}, {"chat_template_args": "enable_thinking=false"},
        ]  # fmt: skip
        prints = [fingerprint(run(tmp_path, gsm8k_mirror, **change)) for change in changes]
        assert len({one["settings"] for one in [fingerprint(plain), *prints]}) == 6
        assert len({one["prompt"] for one in [fingerprint(plain), *prints]}) == 1
        system = fingerprint(run(tmp_path, gsm8k_mirror, system="Be brief."))
        assert system["prompt"] != fingerprint(plain)["prompt"]
        assert system["settings"] == fingerprint(plain)["settings"]

    def test_the_manifest_holds_the_settings_in_full(self, tmp_path: Path, gsm8k_mirror: Path) -> None:
        found = run(tmp_path, gsm8k_mirror, profile="qwen3_no_think", gen_kwargs={"max_tokens": "context"}, samples=2)
        manifest = read_manifest(found.path)
        assert manifest.settings is not None and manifest.sampling is not None
        assert manifest.settings["profile"] == "qwen3_no_think"
        assert manifest.settings["gen_kwargs"] == {"max_tokens": "context"}
        effective = manifest.sampling["tulu3_gsm8k"]
        assert effective is not None
        assert effective.items() >= {"temperature": 0.7, "top_k": 20, "max_tokens": "context", "samples": 2}.items()
        plain = read_manifest(run(tmp_path, gsm8k_mirror).path)
        assert plain.settings is None

    def test_scoring_again_keeps_the_settings(self, tmp_path: Path, gsm8k_mirror: Path) -> None:
        found = run(tmp_path, gsm8k_mirror, profile="qwen3_no_think", samples=3, system="Be brief.")
        before = json.loads((found.path / "results.json").read_text())
        done = olmes_here("score", found.path, "--data-dir", gsm8k_mirror, tmp=tmp_path)
        assert done.returncode == 0, done.stderr
        after = json.loads((found.path / "results.json").read_text())
        assert after["tasks"] == before["tasks"]

    def test_runs_of_other_settings_do_not_compare(self, tmp_path: Path, gsm8k_mirror: Path) -> None:
        one = run(tmp_path, gsm8k_mirror, gen_kwargs="temperature=0.6,max_tokens=64")
        other = run(tmp_path, gsm8k_mirror, gen_kwargs="temperature=1,max_tokens=context")
        done = olmes_here("compare", one.path, other.path, tmp=tmp_path)
        assert done.returncode == 4
        assert "settings differ (max_tokens 64 and context, temperature 0.6 and 1.0)" in done.stderr
        gated = api.gate(one.path, other.path)
        assert gated.exit == 4 and "temperature 0.6 and 1.0" in gated.markdown()


class TestSamples:
    """Several answers to each request."""

    def test_a_score_is_the_mean_over_samples(self, tmp_path: Path, gsm8k_mirror: Path) -> None:
        found = run(tmp_path, gsm8k_mirror, gen_kwargs="temperature=1", samples=7, limit=40)
        lines = [json.loads(line) for line in (found.path / "responses/tulu3_gsm8k.jsonl").read_text().splitlines()]
        texts = {doc: [line["text"] for line in lines if line["doc_id"] == doc] for doc in range(40)}
        assert all(len(set(answers)) > 1 for answers in texts.values())
        right = [sum(str(2 * doc + 3) in text for text in answers) / 7 for doc, answers in texts.items()]
        assert any(0 < value < 1 for value in right)
        value = found.results.tasks["tulu3_gsm8k"].score
        assert value is not None and value.value is not None and 0 < value.value <= sum(right) / 40 + 1e-9

    def test_a_run_goes_on_by_sample_and_asks_nothing_twice(
        self, tmp_path: Path, gsm8k_mirror: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: Counter[tuple[int, int]] = Counter()
        seeds_asked: dict[tuple[int, int], int] = {}
        plain = MockBackend.run
        most = 500

        def counted(self: MockBackend, requests: Any, seeds: Any) -> Any:
            for position, sample, response in plain(self, requests, seeds):
                place = requests[position].doc_id, sample
                asked[place] += 1
                seeds_asked[place] = seeds[position][sample]
                yield position, sample, response
                if sum(asked.values()) == most:
                    raise KeyboardInterrupt

        monkeypatch.setattr(MockBackend, "run", counted)
        options: dict[str, Any] = {"limit": 30, "gen_kwargs": "temperature=0.7", "samples": 32}
        with pytest.raises(Exception, match="interrupted"):
            run(tmp_path / "broken", gsm8k_mirror, **options)
        most = 0
        found = run(tmp_path / "broken", gsm8k_mirror, **options)
        assert set(asked.values()) == {1} and len(asked) == 30 * 32
        assert len(set(seeds_asked.values())) == 30 * 32
        whole = run(tmp_path / "whole", gsm8k_mirror, **options)
        for name in ("results.json", "responses/tulu3_gsm8k.jsonl"):
            assert (found.path / name).read_bytes() == (whole.path / name).read_bytes()

    def test_greedy_samples_and_settings_without_effect_are_one_line(self, tmp_path: Path, gsm8k_mirror: Path) -> None:
        for options, words in (
            ({"samples": 4}, "gsm8k: greedy answers"),
            ({"gen_kwargs": "top_p=0.9"}, "no effect on greedy answers"),
            ({"gen_kwargs": "do_sample=true"}, "sets no temperature"),
        ):
            with pytest.raises(UsageError, match=words):
                run(tmp_path, gsm8k_mirror, **options)


def test_log_likelihood_tasks_say_that_sampling_has_no_effect(tmp_path: Path) -> None:
    command = ("eval", "--backend", "mock", "--task", "truthfulqa", "--data", "sample", "--json", "--runs", tmp_path)
    done = olmes_here(*command, "--gen-kwargs", "temperature=0.6", "--samples", "4", tmp=tmp_path)
    assert as_json(done)["path"] == as_json(olmes_here(*command, tmp=tmp_path))["path"]
    assert "--gen-kwargs and --samples: without effect" in done.stderr


@pytest.mark.long
def test_a_budget_beyond_the_context_is_one_line_before_asking(tmp_path: Path, tiny_checkpoint: Path) -> None:
    command = ("eval", "--model", tiny_checkpoint, "--backend", "hf", "--device", "cpu", "--task", "popqa", "--data",
               "sample", "--runs", tmp_path, "--json")  # fmt: skip
    done = olmes_here(*command, "--profile", "qwen3_think", tmp=tmp_path)
    assert "max_tokens=context" in one_line_error(done) and "32768" in done.stderr
    done = olmes_here(*command, "--profile", "qwen3_think", "--gen-kwargs", "max_tokens=context", tmp=tmp_path)
    lines = next(Path(as_json(done)["path"]).glob("responses/*")).read_text().splitlines()
    assert all(json.loads(line)["limit"] < 4096 for line in lines)


def test_tasks_show_says_where_each_setting_comes_from(tmp_path: Path) -> None:
    command = ("tasks", "show", "gsm8k", "--profile", "qwen3_think", "--gen-kwargs", "max_tokens=context")
    found = as_json(olmes_here(*command, "--json", tmp=tmp_path))["settings"]
    assert found["max_tokens"] == {"value": "context", "from": "command", "task": 512}
    assert found["temperature"] == {"value": 0.6, "from": "profile", "task": 0.0}
    assert found["stop"]["from"] == "task"
    assert found["chat_template_args.enable_thinking"]["value"] is True
    text = olmes_here(*command, tmp=tmp_path).stdout
    assert 'max_tokens                          "context"  (command, the task\'s own is 512)' in text


def test_what_a_backend_cannot_do_is_one_line(
    tmp_path: Path, gsm8k_mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from olmes_suite.evaluation import settings_checks
    from olmes_suite.tasks import catalog

    monkeypatch.setattr(catalog, "include_paths", [])
    monkeypatch.setattr(settings_checks, "fields_of", lambda name: frozenset())
    with pytest.raises(UsageError, match="--gen-kwargs top_k: --backend mock does not have it"):
        run(tmp_path, gsm8k_mirror, gen_kwargs="temperature=1,top_k=5")
    with pytest.raises(UsageError, match="temperature=default leaves the temperature to a server"):
        run(tmp_path, gsm8k_mirror, gen_kwargs="temperature=default")
    (tmp_path / "own.yaml").write_text(
        "task: own\ndataset_path: openai/gsm8k\ndataset_name: main\ntest_split: test\noutput_type: generate_until\n"
        "doc_to_text: '{{question}}'\ndoc_to_target: '{{answer}}'\n"
        "generation_kwargs: {until: ['x'], repetition_penalty: 1.5}\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    options = {"task": ["own", "gsm8k"], "include_path": tmp_path}
    found = run(tmp_path / "runs", gsm8k_mirror, **options)
    assert list(found.failed) == ["own"]
    assert "repetition_penalty" in (found.results.tasks["own"].error or "")


def test_prompts_show_the_system_prompt_and_the_sampling(tmp_path: Path) -> None:
    command = ("prompts", "--task", "gsm8k", "--data", "sample", "--limit", "1", "--system", "Be brief.")
    done = olmes_here(*command, "--profile", "qwen3_no_think", "--gen-kwargs", "max_tokens=context", tmp=tmp_path)
    found = as_json(done)
    assert found["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (found["temperature"], found["top_k"], found["max_tokens"]) == (0.7, 20, "context")


@pytest.mark.parametrize(
    ("more", "said"), [((), True), pytest.param(("--samples", "1"), False, marks=pytest.mark.long)]
)
def test_a_greedy_profile_makes_the_samples_of_a_task_equal(tmp_path: Path, more: tuple[str, ...], said: bool) -> None:
    task = ("--task", "olmo3_aime_2024", "--data", "sample", "--limit", "1")
    done = olmes_here("eval", "--backend", "mock", "--profile", "greedy", *task, *more, tmp=tmp_path)
    note = "olmo3_aime_2024: the 32 answers to each request are equal at temperature 0; --samples 1 asks for one"
    assert (done.returncode, note in done.stderr) == (0, said)


@pytest.mark.long
def test_an_argument_that_the_template_does_not_use_ends_the_run_before_it_starts(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    task = ("--task", "gsm8k", "--data", "sample", "--limit", "1", "--gen-kwargs", "max_tokens=4")
    given = ("eval", "--backend", "hf", "--model", tiny_checkpoint, "--device", "cpu", *task)
    done = olmes_here(*given, "--chat-template-args", "enable_thinking=false", tmp=tmp_path)
    assert "enable_thinking=false: the model's chat template does not use it" in one_line_error(done)
    done = olmes_here(*given, "--profile", "qwen3_no_think", tmp=tmp_path)
    assert done.returncode == 0 and "--chat-template-args enable_thinking=false: the chat template" in done.stderr
