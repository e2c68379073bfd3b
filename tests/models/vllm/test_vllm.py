"""The vllm backend with a real engine on the processor: `make test-vllm`, in an environment of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import as_json, environment, olmes, one_line_error, write_gsm8k
from models_fixture import (
    CHAT_TEMPLATE,
    PROMPTS,
    STOPS,
    answers,
    choice,
    generation,
    make_model,
    make_tiny_model,
    one_line,
)
from worker_runs import alive, children, command_of, only_run, wait_for

from olmes_suite.errors import UsageError
from olmes_suite.models.factory import make_backend
from olmes_suite.models.vllm import engine as vllm_engine

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm makes an environment that has it")
pytestmark = pytest.mark.vllm

ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
ARGS = {"enforce_eager": True, "gpu_memory_utilization": 0.2}
ARGS_TEXT = ",".join(f"{name}={json.dumps(value)}" for name, value in ARGS.items())
CONTEXTS = ["Which of these is a colour?\nAnswer:", "The old clock ", "Q: x\n\n", "", "<s>The answer is", " "]
CHOICES = [" A", " B", " C", " in the hall strikes nine", "green\n", "</s>", "<s> A"]


@pytest.fixture(scope="module", autouse=True)
def on_cpu() -> Iterator[None]:
    """An engine in this process, with a cache of 1 GB."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ON_CPU.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def wide_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a chat template; vLLM's attention on a processor wants heads of 32 numbers."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), head_dim=32, max_length=4096)


@pytest.fixture(scope="module")
def hf(wide_heads: Path) -> Any:
    return make_backend("hf", str(wide_heads), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def vllm(wide_heads: Path) -> Iterator[Any]:
    """One engine for the tests of this module."""
    backend = make_backend("vllm", str(wide_heads), model_args=ARGS)
    yield backend
    backend.close()


@pytest.fixture
def shared(vllm: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Other backends of the tiny model get the module's engine; the models for which one was asked."""
    engine, started = vllm._started(), []

    def start(model: str, arguments: dict[str, Any], adapter: str | None = None) -> Any:
        started.append(model)
        return engine

    monkeypatch.setattr(vllm_engine, "start", start)
    monkeypatch.setattr(engine, "close", lambda: None)
    return started


def sent(engine: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The prompts that reach vLLM's own engine from now on."""
    prompts: list[tuple[int, ...]] = []
    plain = engine._engine.add_request

    def add(number: str, prompt: Any, *args: Any, **more: Any) -> Any:
        prompts.append(tuple(prompt["prompt_token_ids"]))
        return plain(number, prompt, *args, **more)

    monkeypatch.setattr(engine._engine, "add_request", add)
    return prompts


class TestParity:
    """The answers of hf, in float32."""

    def test_greedy_answers(self, vllm: Any, hf: Any) -> None:
        asked = [generation(i, stop=STOPS) for i in range(16)]
        ours = answers(vllm, asked)
        assert ours == answers(hf, asked)
        assert {r.finish_reason for r in ours} == {"stop", "length"}

    def test_greedy_answers_without_stop_strings_and_to_messages(self, vllm: Any, hf: Any) -> None:
        asked = [generation(i) for i in range(8)]
        asked += [generation(i, messages=(("user", p),), text=None, prefix="Answer:") for i, p in enumerate(PROMPTS)]
        assert answers(vllm, asked) == answers(hf, asked)

    def test_stop_strings_that_are_parts_of_tokens_and_of_special_ones(self, vllm: Any, hf: Any) -> None:
        free = [r.text or "" for r in answers(hf, [generation(i) for i in range(8)])]
        pairs = [re.search("[ -~]{2}", text) for text in free]
        asked = [generation(i, stop=(pair[0] if pair else "zz", "</s")) for i, pair in enumerate(pairs)]
        ours = answers(vllm, asked)
        assert ours == answers(hf, asked)
        cut = [text[: pair.start()] if pair else text for text, pair in zip(free, pairs, strict=True)]
        assert [r.text for r in ours] == cut
        assert sum(r.finish_reason == "stop" for r in ours) >= 4

    def test_log_likelihoods_of_one_and_of_several_tokens(self, vllm: Any, hf: Any) -> None:
        pairs = [(context, continuation) for context in CONTEXTS for continuation in CHOICES]
        asked = [choice(i, 0, *pair) for i, pair in enumerate(pairs)]
        ours, theirs = answers(vllm, asked), answers(hf, asked)
        assert [r.loglikelihood for r in ours] == pytest.approx([r.loglikelihood for r in theirs], abs=1e-4)
        assert [r.is_greedy for r in ours] == [r.is_greedy for r in theirs]
        counts = [(r.prompt_tokens, r.completion_tokens, r.truncated) for r in ours]
        assert counts == [(r.prompt_tokens, r.completion_tokens, r.truncated) for r in theirs]

    def test_a_choice_that_is_the_greedy_answer(self, vllm: Any, hf: Any) -> None:
        said = answers(hf, [generation(i, max_tokens=5) for i in range(16)])
        texts = [(i, r.text) for i, r in enumerate(said) if r.text and r.text.isascii() and r.text == r.text.strip()]
        asked = [choice(i, 0, PROMPTS[i], text) for i, text in texts]
        ours = answers(vllm, asked)
        assert [r.is_greedy for r in ours] == [r.is_greedy for r in answers(hf, asked)]

    def test_contexts_longer_than_the_model(self, vllm: Any, hf: Any) -> None:
        long = "x y z " * 3000
        asked = [choice(0, 0, long, " the old"), choice(0, 1, long, "a"), generation(1, long, max_tokens=30)]
        ours, theirs = answers(vllm, asked), answers(hf, asked)
        assert all(r.truncated for r in ours)
        assert [r.loglikelihood for r in ours[:2]] == pytest.approx([r.loglikelihood for r in theirs[:2]], abs=1e-4)
        assert ours[2] == theirs[2]

    def test_a_prompt_that_fills_the_context_to_the_last_token(
        self, wide_heads: Path, hf: Any, shared: list[str]
    ) -> None:
        ours, theirs = (
            make_backend(name, str(wide_heads), max_length=60, **more)
            for name, more in (("vllm", {"model_args": ARGS}), ("hf", {"device": "cpu"}))
        )
        for length in (57, 58, 59, 60, 61, 62):
            asked = [generation(0, "7" * (length - 1), max_tokens=4), choice(1, 0, "7" * (length - 1), "8")]
            mine, other = answers(ours, asked), answers(theirs, asked)
            assert mine[0] == other[0], length
            assert mine[1].loglikelihood == pytest.approx(other[1].loglikelihood, abs=1e-4)

    def test_likeliest_first_tokens(self, vllm: Any, hf: Any) -> None:
        asked = [generation(i) for i in range(3)]
        theirs = dict(hf.alternatives(asked, 5))
        for position, found in vllm.alternatives(asked, 5):
            assert [value for _, value in found] == pytest.approx([v for _, v in theirs[position]], abs=1e-4)


class TestTokens:
    """The engine gets the token ids that hf computes with."""

    @pytest.mark.parametrize("template", [None, CHAT_TEMPLATE, "{{ bos_token }}" + CHAT_TEMPLATE])
    def test_prompts(
        self,
        template: str | None,
        wide_heads: Path,
        vllm: Any,
        shared: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        file = tmp_path / "template.jinja"
        file.write_text(template or CHAT_TEMPLATE)
        ours: Any = make_backend("vllm", str(wide_heads), chat_template=file)
        theirs: Any = make_backend("hf", str(wide_heads), chat_template=file, device="cpu")
        asked = [generation(0), generation(1, f"<s>{PROMPTS[1]}"), generation(2, "")]
        if template:
            asked += [generation(i, messages=(("user", p),), text=None, prefix=" A:") for i, p in enumerate(PROMPTS)]
        computed: list[tuple[int, ...]] = []
        decoded = theirs._decoded
        monkeypatch.setattr(
            theirs, "_decoded", lambda jobs: computed.extend(job.prompt for job in jobs) or decoded(jobs)
        )
        prompts = sent(vllm._started(), monkeypatch)
        assert answers(ours, asked) == answers(theirs, asked)
        assert sorted(prompts) == sorted(computed)
        assert len(prompts) == len(asked)

    def test_four_letters_are_one_prompt(self, vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        prompts = sent(vllm._started(), monkeypatch)
        answers(vllm, [choice(i, n, f"{PROMPTS[i]} (", letter) for i in range(5) for n, letter in enumerate("ABCD")])
        assert len(prompts) == 5


class TestSamples:
    """Each sample has a seed of its own."""

    def test_they_differ_repeat_and_are_asked_for_one_by_one(self, vllm: Any) -> None:
        asked = [generation(i, samples=4, temperature=0.8, top_p=0.95) for i in range(2)]
        first = [r.text for r in answers(vllm, asked, [[1, 2, 3, 4], [5, 6, 7, 8]])]
        assert len(set(first)) == 8
        assert [r.text for r in answers(vllm, asked, [[1, 2, 3, 4], [5, 6, 7, 8]])] == first
        assert [r.text for r in answers(vllm, asked, [[None, None, 3, None], [None] * 4])] == [first[2]]
        assert [r.text for r in answers(vllm, asked, [[4, 3, 2, 1], [None] * 4])] == first[3::-1]

    def test_their_prompt_is_computed_once(self, vllm: Any) -> None:
        prompt = "The children run down the stairs. " * 60
        asked = [generation(0, prompt, samples=6, temperature=1.0, max_tokens=4)]
        engine = vllm._started()._engine
        cached: list[int] = []
        plain = engine.step

        def step() -> Any:
            done = plain()
            cached.extend(output.num_cached_tokens for output in done)
            return done

        engine.step = step
        try:
            answers(vllm, asked, [[1, 2, 3, 4, 5, 6]])
        finally:
            engine.step = plain
        assert len(cached) == 6
        assert sum(count > 128 for count in cached) >= 5


class TestRuns:
    """Whole evaluations."""

    def test_several_tasks_are_one_engine_and_score_as_with_hf(
        self, wide_heads: Path, shared: list[str], cli: Callable[..., tuple[int, str, str]], tmp_path: Path
    ) -> None:
        tasks = [part for task in ("gsm8k", "drop", "mmlu_mc", "truthfulqa") for part in ("--task", task)]
        command = ["eval", "--model", wide_heads, *tasks, "--data", "sample", "--limit", "3", "--json"]
        found = {}
        for name, more in (("vllm", ["--model-args", ARGS_TEXT]), ("hf", ["--device", "cpu"])):
            status, out, err = cli(*command, "--backend", name, *more, "--runs", tmp_path / name)
            assert status == 0, err
            found[name] = json.loads(out)
        assert shared == [str(wide_heads)]
        ours, theirs = found["vllm"]["tasks"], found["hf"]["tasks"]
        assert ours.keys() == theirs.keys()
        for task in ours:
            assert ours[task]["flags"] == theirs[task]["flags"]
            for metric, entry in ours[task]["metrics"].items():
                assert entry["value"] == pytest.approx(theirs[task]["metrics"][metric]["value"], abs=1e-3), task

    def test_killed_and_taken_up_again(self, wide_heads: Path, tmp_path: Path) -> None:
        mirror = write_gsm8k(tmp_path / "mirror", 30)
        runs = tmp_path / "runs"
        command = [
            "eval",
            "--model",
            wide_heads,
            "--backend",
            "vllm",
            "--task",
            "gsm8k",
            "--data-dir",
            mirror,
        ]
        command += ["--batch-size", "1", "--model-args", ARGS_TEXT, "--runs", runs, "--json"]
        process = subprocess.Popen(
            [sys.executable, "-m", "olmes_suite.cli.main", *map(str, command)],
            env=environment(tmp_path, VLLM_ENABLE_V1_MULTIPROCESSING="1"),  # as users run it
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        before: list[str] = []
        end = time.monotonic() + 400
        while len(before) < 3 and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
            before = [line for file in runs.glob(".unfinished/*/responses/*.jsonl") for line in file.open()]
        engines = children(process.pid)
        process.kill()
        process.wait()
        assert engines
        assert 3 <= len(before) < 30
        finished = as_json(olmes(*command, tmp=tmp_path))
        assert not any(Path(f"/proc/{engine}/stat").exists() for engine in engines), "they hold memory"
        lines = (Path(finished["path"]) / "responses/tulu3_gsm8k.jsonl").read_text().splitlines(keepends=True)
        assert set(before[:-1]) <= set(lines)  # a finished file is in the order of the requests
        assert sorted(json.loads(line)["doc_id"] for line in lines) == list(range(30))


class TestWorkers:
    """Two engines, each in processes of its own, as users run them."""

    def test_one_is_killed_and_the_files_are_those_of_one_engine(
        self, wide_heads: Path, shared: list[str], cli: Callable[..., tuple[int, str, str]], tmp_path: Path
    ) -> None:
        command = ["eval", "--model", wide_heads, "--backend", "vllm", "--task", "gsm8k", "--task", "drop"]
        command += ["--task", "bbh", "--data", "sample", "--model-args", ARGS_TEXT]  # enough to be killed in between
        status, _, told = cli(*command, "--runs", tmp_path / "alone")
        assert status == 0, told
        command += ["--runs", tmp_path / "two", "--workers", "2", "--batch-size", "1"]
        run = subprocess.Popen(
            [sys.executable, "-m", "olmes_suite.cli.main", *map(str, command)],
            env=environment(tmp_path, VLLM_ENABLE_V1_MULTIPROCESSING="1"),  # as users run it
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: run.poll() is not None or any(file.stat().st_size for file in responses(tmp_path / "two")))
        named = b"workers.process_main"
        workers = [pid for pid in children(run.pid) if named in command_of(pid)]
        engines = [engine for worker in workers for engine in children(worker)]
        os.kill(workers[0], signal.SIGKILL)
        told = run.communicate(timeout=300)[1]
        assert run.returncode == 0, told
        assert len(workers) == 2
        assert len(engines) >= 2
        assert "open requests go to another worker" in told
        ours, theirs = only_run(tmp_path / "two"), only_run(tmp_path / "alone")
        for name in ("results.json", "responses/tulu3_gsm8k.jsonl", "responses/tulu3_drop.jsonl"):
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
        engine = json.loads((ours / "manifest.json").read_text())["engine"]
        assert engine["workers"] == {"kind": "processes", "count": 2, "died": 1, "lost": 0}
        wait_for(lambda: not any(alive(pid) for pid in (*workers, *engines)), 30)


def responses(runs: Path) -> list[Path]:
    """The files of a run that goes on."""
    return list(runs.glob(".unfinished/*/responses/*.jsonl"))


class TestBadInput:
    """One line, no traceback."""

    def test_an_argument_that_vllm_does_not_have(self, wide_heads: Path) -> None:
        backend = make_backend("vllm", str(wide_heads), model_args={"tensor_paralel_size": 2})
        one_line(lambda: answers(backend, [generation(0)]), "did you mean tensor_parallel_size", UsageError)

    def test_more_memory_than_is_free(self, wide_heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ON_CPU:  # the engine is in a process of its own, whose errors are read from its log
            monkeypatch.delenv(name)
        done = self.run(wide_heads, tmp_path, "enforce_eager=true,gpu_memory_utilization=0.999")
        assert "another program holds the device's memory" in one_line_error(done)

    def test_an_architecture_that_it_cannot_run(self, tmp_path: Path) -> None:
        folder = make_model(tmp_path / "model", "llama")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchForCausalLM"]}))
        done = self.run(folder, tmp_path, f"{ARGS_TEXT},model_impl=vllm", **ON_CPU)
        assert "use --backend hf" in one_line_error(done)

    def run(self, model: Path, tmp: Path, model_args: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = ["eval", "--model", model, "--backend", "vllm", "--task", "gsm8k", "--data", "sample", "--limit", "1"]
        return olmes(*command, "--runs", tmp / "runs", "--model-args", model_args, tmp=tmp, **env)
