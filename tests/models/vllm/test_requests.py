"""What the vllm backend asks of its engine and makes of the answers: with an engine of our own, no vLLM needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import pytest
from models_fixture import PROMPTS, STOPS, answers, choice, generation, make_tiny_model, one_line
from thinking_model import make_thinking_model

from olmes_suite.errors import ModelError, RequestFailed, UsageError
from olmes_suite.models.factory import make_backend
from olmes_suite.models.hf.decoding import RowStop
from olmes_suite.models.local.jobs import Choice, Row
from olmes_suite.models.model_args import parse
from olmes_suite.models.vllm import engine
from olmes_suite.models.vllm.requests import Outcome, RankAsk, TextAsk


class FakeEngine:
    """Answers what is asked with the hf backend, three requests a step, the newest first."""

    def __init__(self, hf: Any) -> None:
        self.hf = hf
        self.open: dict[int, Any] = {}
        self.asked: list[Any] = []
        self.aborted: list[int] = []
        self.breaks_after: int | None = None
        self.refuses: Callable[[Any], bool] = lambda ask: False

    def add(self, number: int, ask: Any) -> None:
        if self.refuses(ask):
            raise RequestFailed("refused")
        self.open[number] = ask
        self.asked.append(ask)

    def step(self) -> list[tuple[int, Outcome]]:
        if self.breaks_after == 0:
            raise engine.BrokenDown("broken")
        self.breaks_after = None if self.breaks_after is None else self.breaks_after - 1
        return [(number, self._answer(self.open.pop(number))) for number in sorted(self.open)[-3:]]

    def _answer(self, ask: Any) -> Outcome:
        import torch

        prompt, settings = list(ask.prompt), ask.settings()
        with torch.inference_mode():
            logits = self.hf.model(input_ids=torch.tensor([prompt])).logits[0].log_softmax(dim=-1)
        if settings["max_tokens"] > 1:
            return self._text(prompt, settings)
        told: list[Any] = [None]
        for row, token in zip(logits, prompt[1:], strict=False):
            rank = int((row > row[token]).sum()) + 1
            told.append({token: SimpleNamespace(logprob=float(row[token]), rank=rank)})
        wanted = settings.get("logprob_token_ids") or logits[-1].topk(settings["logprobs"]).indices.tolist()
        first = {token: float(logits[-1, token]) for token in wanted}
        return Outcome([int(logits[-1].argmax())], "length", told if "prompt_logprobs" in settings else (), first)

    def _text(self, prompt: list[int], settings: dict[str, Any]) -> Outcome:
        import torch

        said = self.hf.model.generate(torch.tensor([prompt]), max_new_tokens=settings["max_tokens"], do_sample=False)
        end = RowStop(self.hf.tokenizer, settings["stop"] or [], settings["max_tokens"], settings["stop_token_ids"], {})
        for token in said[0, len(prompt) :].tolist():
            end.add(token)
        return Outcome(end.tokens, end.reason)

    def abort(self, numbers: Sequence[int]) -> None:
        self.aborted += numbers

    def close(self) -> None:
        self.open.clear()


@pytest.fixture(scope="module")
def wide_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), head_dim=32)


@pytest.fixture(scope="module")
def hf(wide_heads: Path) -> Any:
    return make_backend("hf", str(wide_heads), device="cpu")


@pytest.fixture
def engines(hf: Any, monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    """The engines that were started."""
    started: list[FakeEngine] = []

    def start(model: str, arguments: dict[str, Any], adapter: str | None = None) -> FakeEngine:
        started.append(FakeEngine(hf))
        started[-1].arguments = arguments  # type: ignore[attr-defined]
        return started[-1]

    monkeypatch.setattr(engine, "check_installed", lambda: None)
    monkeypatch.setattr(engine, "installed_version", lambda: "0")
    monkeypatch.setattr(engine, "start", start)
    return started


@pytest.fixture
def backend(wide_heads: Path, engines: list[FakeEngine]) -> Iterator[Any]:
    yield make_backend("vllm", str(wide_heads))


def test_text_requests_carry_the_tokens_of_hf_and_their_own_settings(backend: Any, engines: list[FakeEngine]) -> None:
    asked = [
        generation(0, stop=("\n", ""), max_tokens=7),
        generation(
            1, messages=(("user", "Hello"),), text=None, prefix="Answer:", temperature=0.5, top_p=0.9, samples=2
        ),
    ]
    answers(backend, asked, [[5], [None, 8]])
    plain, chat = sorted(engines[0].asked, key=lambda ask: ask.job.position)
    assert plain.prompt == tuple(backend.encoder.prompts(asked[:1])[0])
    assert plain.prompt[0] == backend.tokenizer.bos_token_id
    assert chat.prompt == tuple(backend.tokenizer.encode("<|user|>\nHello\n<|assistant|>\nAnswer:")[1:])
    ends = {"stop_token_ids": [1], "skip_special_tokens": False}
    assert plain.settings() == {"temperature": 0.0, "max_tokens": 7, "stop": ["\n", "</s>"], **ends}
    sampled = {"temperature": 0.5, "top_p": 0.9, "seed": 8}  # the sample that was left
    assert chat.settings() == {"max_tokens": 24, "stop": ["</s>"], **sampled, **ends}


def test_texts_are_cut_as_hf_cuts_them(backend: Any, hf: Any) -> None:
    asked = [generation(i, stop=STOPS) for i in range(8)]
    ours, theirs = answers(backend, asked), answers(hf, asked)
    assert [r.text for r in ours] == [r.text for r in theirs]


def test_choices_of_one_token_are_one_request(backend: Any, hf: Any, engines: list[FakeEngine]) -> None:
    asked = [choice(i, n, f"{PROMPTS[i]} (", letter) for i in range(3) for n, letter in enumerate("ABCD")]
    ours, theirs = answers(backend, asked), answers(hf, asked)
    assert len(engines[0].asked) == 3
    assert all("prompt_logprobs" not in ask.settings() for ask in engines[0].asked)
    assert all(len(ask.settings()["logprob_token_ids"]) == 4 for ask in engines[0].asked)
    assert [r.loglikelihood for r in ours] == pytest.approx([r.loglikelihood for r in theirs], abs=1e-4)
    assert [r.is_greedy for r in ours] == [r.is_greedy for r in theirs]


def test_longer_choices_are_read_from_the_prompt(backend: Any, hf: Any, engines: list[FakeEngine]) -> None:
    texts = [" in the hall", " in the door", "green\n", " A", "</s>"]
    asked = [choice(0, n, "The old clock", text) for n, text in enumerate(texts)]
    ours, theirs = answers(backend, asked), answers(hf, asked)
    assert [r.loglikelihood for r in ours] == pytest.approx([r.loglikelihood for r in theirs], abs=1e-4)
    assert [r.is_greedy for r in ours] == [r.is_greedy for r in theirs]
    for ask in engines[0].asked:
        assert isinstance(ask, RankAsk)
        assert ("prompt_logprobs" in ask.settings()) == (ask.row.width > 1)


def test_a_prompt_that_is_too_long_is_cut_and_marked_as_by_hf(backend: Any, hf: Any) -> None:
    asked = [choice(0, 0, "x y z " * 400, " the old"), generation(1, "x y z " * 400, max_tokens=20)]
    ours, theirs = answers(backend, asked), answers(hf, asked)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.truncated
        assert (mine.prompt_tokens, mine.completion_tokens) == (other.prompt_tokens, other.completion_tokens)


def test_many_last_tokens_are_asked_in_parts(backend: Any, engines: list[FakeEngine]) -> None:
    letters = [chr(c) for c in range(33, 127)] + [f" {chr(c)}" for c in range(33, 127)]
    found = answers(backend, [choice(0, n, "Answer:\n", letter) for n, letter in enumerate(letters)])
    assert len(found) == len(letters)
    assert all(len(ask.settings()["logprob_token_ids"]) <= 128 for ask in engines[0].asked)


def test_long_answers_first_and_equal_beginnings_together(backend: Any, engines: list[FakeEngine]) -> None:
    asked = [generation(i, text, max_tokens=2 + 2 * (i % 2)) for i, text in enumerate(["b 1", "a 1", "b 2", "a 2"])]
    answers(backend, asked)
    assert [ask.job.request.text for ask in engines[0].asked] == ["a 1", "a 2", "b 1", "b 2"]


def test_likeliest_first_tokens(backend: Any, hf: Any) -> None:
    asked = [generation(i) for i in range(3)]
    theirs = dict(hf.alternatives(asked, 4))
    for position, found in backend.alternatives(asked, 4):
        assert [text for text, _ in found] == [text for text, _ in theirs[position]]
        assert [value for _, value in found] == pytest.approx([value for _, value in theirs[position]], abs=1e-4)


def test_one_engine_serves_several_calls_and_starts_with_the_first(backend: Any, engines: list[FakeEngine]) -> None:
    assert backend.fingerprint
    assert not engines
    for i in range(3):
        answers(backend, [generation(i)])
    assert len(engines) == 1


def test_after_ctrl_c_what_is_under_way_is_dropped(backend: Any, engines: list[FakeEngine]) -> None:
    got = []
    for item in backend.run([generation(i) for i in range(8)], [[0]] * 8):
        got.append(item)
        backend.stop_requested = True
    assert len(got) == 3  # what one step gave
    assert len(engines[0].aborted) == 5


@pytest.mark.long
def test_an_engine_that_breaks_down_is_replaced_for_the_next_task(backend: Any, engines: list[FakeEngine]) -> None:
    answers(backend, [generation(0)])
    engines[0].breaks_after = 1
    got = []
    with pytest.raises(RequestFailed, match="broken"):
        got.extend(backend.run([generation(i) for i in range(8)], [[0]] * 8))
    assert len(answers(backend, [generation(0)])) == 1
    assert len(engines) == 2


def test_a_refused_request_is_told_of_when_the_others_are_done(backend: Any, engines: list[FakeEngine]) -> None:
    answers(backend, [generation(0)])
    engines[0].refuses = lambda ask: isinstance(ask, TextAsk) and ask.job.position == 2
    got = []
    with pytest.raises(RequestFailed, match="refused"):
        for item in backend.run([generation(i) for i in range(5)], [[0]] * 5):
            got.append(item[0])
    assert sorted(got) == [0, 1, 3, 4]


def test_the_fingerprint_is_made_of_what_decides_answers(wide_heads: Path, engines: list[FakeEngine], hf: Any) -> None:
    def made(**options: Any) -> str:
        return make_backend("vllm", str(wide_heads), **options).fingerprint

    same = made()
    assert same == made(model_args={"gpu_memory_utilization": 0.5, "enforce_eager": True}, batch_size=3)
    others = [made(dtype="bfloat16"), made(max_length=99), made(model_args={"quantization": "fp8"}), hf.fingerprint]
    assert len({same, *others}) == 5


def test_arguments_of_the_engine(wide_heads: Path, engines: list[FakeEngine]) -> None:
    backend: Any = make_backend("vllm", str(wide_heads), batch_size=7, model_args={"tensor_parallel_size": 2})
    answers(backend, [generation(0)])
    given = engines[0].arguments  # type: ignore[attr-defined]
    assert given["max_model_len"] == 513  # one more than the model's: the token after a full prompt
    assert (given["max_num_seqs"], given["tensor_parallel_size"]) == (7, 2)
    assert json.dumps(backend.settings()["arguments"])


def test_an_adapter_is_loaded_with_its_rank(wide_heads: Path, tmp_path: Path, engines: list[FakeEngine]) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 32}')
    plain = make_backend("vllm", str(wide_heads))
    tuned: Any = make_backend("vllm", str(wide_heads), model_args={"lora_local_path": str(tmp_path)})
    assert tuned.arguments["max_lora_rank"] == 32
    assert tuned.arguments["enable_lora"]
    assert "lora_local_path" not in tuned.arguments
    assert tuned.fingerprint != plain.fingerprint


def test_an_adapter_as_model_is_loaded_on_its_base(wide_heads: Path, tmp_path: Path, engines: list[FakeEngine]) -> None:
    pytest.importorskip("peft", reason="adapters need PEFT")
    from safetensors.numpy import save_file

    config = {"r": 12, "peft_type": "LORA", "base_model_name_or_path": str(wide_heads), "lora_alpha": 8}
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(config))
    save_file({"a": np.zeros(2)}, tmp_path / "adapter_model.safetensors")
    tuned: Any = make_backend("vllm", str(tmp_path))
    assert (tuned.arguments["model"], tuned.arguments["max_lora_rank"]) == (str(wide_heads), 16)
    assert tuned.adapter == str(tmp_path)
    before = tuned.fingerprint
    file.write_text(json.dumps(config | {"lora_alpha": 9}))
    assert make_backend("vllm", str(tmp_path)).fingerprint != before
    both = {"lora_local_path": str(tmp_path)}
    one_line(lambda: make_backend("vllm", str(tmp_path), model_args=both), "is an adapter itself", UsageError)
    for more in ({"modules_to_save": ["lm_head"]}, {"use_dora": True}, {"bias": "all"}, {"peft_type": "IA3"}):
        file.write_text(json.dumps(config | more))
        one_line(lambda: make_backend("vllm", str(tmp_path)), "use --backend hf, or merge it: python -m", ModelError)


class TestBadInput:
    """One line each."""

    def test_without_vllm_the_extra_is_named(self, wide_heads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        one_line(lambda: make_backend("vllm", str(wide_heads)), r"pip install 'olmes-suite\[vllm\]'", UsageError)

    @pytest.mark.parametrize(
        ("argument", "told"),
        [
            ({"max_model_len": 9}, "--max-length"),
            ({"data_parallel_size": 2}, "--workers"),
            ({"lora_local_path": "nowhere"}, "adapter_config.json"),
        ],
    )
    def test_arguments_with_a_way_of_their_own(
        self, wide_heads: Path, engines: list[FakeEngine], argument: dict[str, Any], told: str
    ) -> None:
        one_line(lambda: make_backend("vllm", str(wide_heads), model_args=argument), told, UsageError)

    def test_a_device_is_chosen_by_the_environment(self, wide_heads: Path, engines: list[FakeEngine]) -> None:
        one_line(
            lambda: make_backend("vllm", str(wide_heads), device="cuda:3"),
            "CUDA_VISIBLE_DEVICES|CUDA devices",
            UsageError,
        )

    def test_a_broken_configuration(self, tmp_path: Path, engines: list[FakeEngine]) -> None:
        folder = make_tiny_model(tmp_path / "model")
        (folder / "config.json").write_text('{"model_type": "no_such"}')
        one_line(lambda: make_backend("vllm", str(folder)), "no_such", ModelError)

    def test_other_backends_take_no_model_args(self, wide_heads: Path) -> None:
        one_line(
            lambda: make_backend("hf", str(wide_heads), model_args={"a": 1}),
            "hf has no option --model-args",
            UsageError,
        )


def test_model_args() -> None:
    text = "tensor_parallel_size=2, gpu_memory_utilization=0.5,quantization=fp8,eager=true,x=null"
    text += ',rope={"a": 1, "b": [2,3]}'
    assert parse(text) == {
        "tensor_parallel_size": 2, "gpu_memory_utilization": 0.5, "quantization": "fp8", "eager": True, "x": None,
        "rope": {"a": 1, "b": [2, 3]},
    }  # fmt: skip
    assert parse("path=/a/b:c,version=1.2.3") == {"path": "/a/b:c", "version": "1.2.3"}
    assert parse("") == {}
    for wrong, told in (("a", "not name=value"), ("a=1,a=2", "given twice"), ("a b=1", "not name=value")):
        one_line(lambda wrong=wrong: parse(wrong), told, UsageError)


UNTOLD = RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")


def validation_error(text: str) -> Exception:
    """What pydantic raises around the ValueError of a check."""
    from pydantic import AfterValidator, TypeAdapter, ValidationError

    def check(value: int) -> int:
        raise ValueError(text)

    try:
        TypeAdapter(Annotated[int, AfterValidator(check)]).validate_python(1)
    except ValidationError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "log", "told"),
    [
        (
            UNTOLD,
            "(EngineCore pid=1) ERROR 11-21 [core.py:1] ValueError: Free memory on device cuda:0 (3.1/139.8 GiB) on "
            "startup is less than desired GPU memory utilization (0.92, 128.6 GiB).\n"
            "RuntimeError: Engine core initialization failed. See root cause above.\n",
            r"another program holds the device's memory: Free memory on device cuda:0 \(3.1/139.8 GiB\).*wait",
        ),
        (ValueError("To serve at least one request with the model's max seq len (9)"), "", "lower --max-length"),
        (UNTOLD, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n", "tensor_parallel_size"),
        (UNTOLD, "ValueError: Model architectures ['X'] are not supported for now.", "use --backend hf"),
        (UNTOLD, "nothing of use", "Engine core initialization failed"),
        (KeyError(), "", "KeyError"),
        (ValueError("first\nsecond"), "", "^first$"),
        (
            validation_error("Model architectures ['X'] fail."),
            "",
            r"architecture: Model architectures \['X'\] fail; use",
        ),
    ],
)
def test_why_an_engine_did_not_start(error: Exception, log: str, told: str) -> None:
    import re

    found = engine.explain(error, log)
    assert re.search(told, found)
    assert "\n" not in found


def test_vllm_is_not_chosen_without_a_gpu(wide_heads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from olmes_suite.models import factory

    monkeypatch.setattr(factory, "find_spec", lambda name: object())
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert make_backend("auto", str(wide_heads)).name == "hf"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert factory.automatic() == "vllm"


def test_what_is_no_log_probability_is_an_error() -> None:
    """A network whose numbers overflow gives NaN or infinities."""
    request = generation(0)
    job = Choice(0, 0, request, (1, 2), (3,), False)
    ask = RankAsk(Row((1, 2), (job,)))
    for value in (float("nan"), float("inf")):
        with pytest.raises(RequestFailed, match="log-probability"):
            list(ask.read(Outcome([3], "length", (), {3: value})))
    with pytest.raises(RequestFailed, match="not a number"):
        list(ask.read(Outcome([3], "length", (), {3: float("-inf")})))
    told = [None, None, {3: SimpleNamespace(logprob=float("nan"), rank=1)}]
    long = Row((1, 2, 3), (Choice(0, 0, request, (1, 2), (3, 4), False),))
    with pytest.raises(RequestFailed, match="log-probability"):
        list(RankAsk(long).read(Outcome([4], "length", told, {4: -1.0})))


def test_likeliest_tokens_that_are_no_numbers_are_an_error(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEngine, "_answer", lambda *_: Outcome([3], "length", (), {3: float("nan")}))
    with pytest.raises(RequestFailed, match="log-probability"):
        list(backend.alternatives([generation(0)], 1))


def test_how_weights_are_loaded_is_part_of_the_fingerprint(wide_heads: Path, engines: list[FakeEngine]) -> None:
    """`dummy` makes random ones."""
    plain, dummy = (make_backend("vllm", str(wide_heads), model_args=a) for a in ({}, {"load_format": "dummy"}))
    assert plain.fingerprint != dummy.fingerprint


@pytest.mark.long
def test_thoughts_are_read_as_hf_reads_them(
    tmp_path_factory: pytest.TempPathFactory, engines: list[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_thinking_model(tmp_path_factory.mktemp("thinks"), head_dim=32)
    hf = make_backend("hf", str(folder), device="cpu")
    monkeypatch.setattr(engine, "start", lambda *_: FakeEngine(hf))
    asked = [
        generation(i, text=None, messages=(("user", f"question {i}"),), max_tokens=limit)
        for i, limit in ((0, 64), (1, 64), (0, 10))
    ]
    ours, theirs = answers(make_backend("vllm", str(folder)), asked), answers(hf, asked)
    assert ours == theirs
    assert [response.unclosed for response in ours] == [False, False, True]
    empty = answers(make_backend("vllm", str(folder), unclosed="empty"), asked[2:])
    assert (empty[0].text, empty[0].thinking) == ("", theirs[2].thinking)
    prefilled = replace(asked[0], prefix="Answer:")
    vllm = make_backend("vllm", str(folder))
    assert vllm.encoder.prompts([prefilled]) == hf.encoder.prompts([prefilled])
    assert vllm.settings()["thinking"] == hf.settings()["thinking"]
