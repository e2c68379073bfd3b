"""Backends without weights, fingerprints, the factory, and one-line errors for broken checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from models_fixture import (
    CHAT_TEMPLATE,
    PROMPTS,
    SMALL,
    answers,
    choice,
    generation,
    make_tiny_model,
    make_tiny_tokenizer,
    one_line,
)

from olmes_suite.errors import ModelError, RequestFailed, UsageError
from olmes_suite.models.base import Backend
from olmes_suite.models.factory import backend_names, make_backend
from olmes_suite.models.local import fingerprint as fingerprints
from olmes_suite.models.local.checkpoint import check_folder, tensor_shapes
from olmes_suite.models.local.fingerprint import fingerprint_of, hub_commit
from olmes_suite.models.without_model.base import WithoutModel
from olmes_suite.models.without_model.floor import ANSWERS, FloorBackend
from olmes_suite.models.without_model.mock import MockBackend
from olmes_suite.models.without_model.oracle import OracleBackend
from olmes_suite.records import Request, Response


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a chat template."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hash cache of the test's own."""
    monkeypatch.setenv("OLMES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _drop_the_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def _drop_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _shrink_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:10].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "config cut": (lambda f: (f / "config.json").write_text('{"model_type": '), "cannot be read as JSON"),
    "config a list": (lambda f: (f / "config.json").write_text("[]"), "not a JSON object"),
    "config empty": (lambda f: (f / "config.json").write_text("{}"), "model_type"),
    "unknown architecture": (lambda f: (f / "config.json").write_text('{"model_type": "llamma"}'), "model"),
    "no tokenizer": (_drop_the_tokenizer, "no tokenizer"),
    "tokenizer cut": (lambda f: _truncate(f / "tokenizer.json"), "tokenizer.json"),
    "tokenizer of nothing": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights"),
    "weights cut": (lambda f: _truncate(f / "model.safetensors"), "damaged"),
    "weights empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "damaged"),
    "weights garbage": (
        lambda f: (f / "model.safetensors").write_bytes(b"\x10" + bytes(7) + b"x" * 64),
        "damaged",
    ),
    "weights a pointer": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs"),
        "damaged",
    ),
    "tensor missing": (_drop_a_tensor, "lack 1 of the model's tensors"),
    "tensor of a wrong shape": (_shrink_a_tensor, "model"),
    "shard missing": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00002.safetensors"}}'),
        "lacks 1 of the weight files",
    ),
}


class TestBrokenCheckpoints:
    """Every broken checkpoint is one line that names what is wrong."""

    @pytest.mark.parametrize("name", BROKEN)
    def test_one_line(self, copy: Path, name: str) -> None:
        damage, match = BROKEN[name]
        damage(copy)
        one_line(lambda: make_backend("hf", str(copy), device="cpu"), match, ModelError)

    def test_shapes_by_the_header(self, copy: Path) -> None:
        file = copy / "model.safetensors"
        found = tensor_shapes(file)
        assert found["model.norm.weight"] == [json.loads((copy / "config.json").read_text())["hidden_size"]]
        whole = file.read_bytes()
        for damaged in (whole[:-1], whole + b"x", whole[:4]):
            file.write_bytes(damaged)
            one_line(lambda: tensor_shapes(file), "damaged", ModelError)

    @pytest.mark.parametrize("model", ["/nowhere/at/all", "./nothing", "a/b/c"])
    def test_missing_folders(self, model: str) -> None:
        one_line(lambda: make_backend("hf", model), "folder", ModelError)

    def test_a_file_is_no_folder(self, copy: Path) -> None:
        one_line(lambda: check_folder(copy / "config.json"), "is a file", ModelError)

    def test_an_adapter_is_named(self, copy: Path) -> None:
        (copy / "config.json").rename(copy / "adapter_config.json")
        one_line(lambda: check_folder(copy), "adapter", ModelError)

    def test_unknown_hub_ids(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError

        response: Any = SimpleNamespace(headers={}, request=None)

        def unknown(*args: Any, **kwargs: Any) -> None:
            raise RepositoryNotFoundError("404", response=response)

        def offline(*args: Any, **kwargs: Any) -> None:
            raise ConnectionError("no route")

        monkeypatch.setattr(HfApi, "model_info", unknown)
        one_line(lambda: make_backend("hf", "nobody/nothing", device="cpu"), "neither a folder nor a model", ModelError)
        monkeypatch.setattr(HfApi, "model_info", offline)
        one_line(lambda: make_backend("hf", "nobody/nothing", device="cpu"), "cannot be reached", ModelError)

    @pytest.mark.parametrize(
        ("free", "words"), [(2, "another process is on it"), (23, "a larger device"), (None, "a larger device")]
    )
    def test_a_full_gpu_says_who_may_be_there(
        self, tiny: Path, monkeypatch: pytest.MonkeyPatch, free: int | None, words: str
    ) -> None:
        import torch
        from transformers import LlamaForCausalLM

        from olmes_suite.models.local.loading import load_model

        def memory(device: torch.device) -> tuple[int, int]:
            if free is None:
                raise RuntimeError("CUDA error: out of memory")
            return free * 1024**3, 24 * 1024**3

        def move(self: Any, device: torch.device) -> None:
            raise RuntimeError("CUDA error: out of memory")

        monkeypatch.setattr(LlamaForCausalLM, "to", move)
        monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
        cuda = torch.device("cuda", 0)
        one_line(
            lambda: load_model(str(tiny), None, torch.float32, cuda), f"does not fit on cuda:0.*{words}", ModelError
        )

    def test_wrong_device_and_dtype(self, tiny: Path) -> None:
        one_line(lambda: make_backend("hf", str(tiny), device="gpu9"), "--device gpu9", UsageError)
        one_line(lambda: make_backend("hf", str(tiny), device="cuda:99"), "--device cuda:99", UsageError)
        one_line(lambda: make_backend("hf", str(tiny), device="cpu", dtype="int3"), "--dtype int3", UsageError)

    @pytest.mark.parametrize("device", ["meta", "hpu", "vulkan", "xla"])
    def test_devices_that_torch_knows_and_this_machine_has_not(self, tiny: Path, device: str) -> None:
        one_line(lambda: make_backend("hf", str(tiny), device=device), f"--device {device}: torch cannot", UsageError)

    @pytest.mark.parametrize(("name", "own"), [("GPT2", {}), ("OPT", {}), ("GPTJ", {"rotary_dim": 8})])
    def test_a_context_beyond_the_positions(self, tmp_path: Path, name: str, own: dict[str, Any]) -> None:
        import transformers

        config: Any = getattr(transformers, f"{name}Config")(**{**SMALL, **own, "max_position_embeddings": 64})
        model: Any = transformers.AutoModelForCausalLM.from_config(config)
        model.save_pretrained(tmp_path)
        make_tiny_tokenizer().save_pretrained(tmp_path)
        whole: Any = make_backend("hf", str(tmp_path), device="cpu", max_length=64)
        (found,) = answers(whole, [generation(0, "x y z " * 40)])
        assert found.prompt_tokens == 40 and found.completion_tokens == 24
        one_line(
            lambda: make_backend("hf", str(tmp_path), device="cpu", max_length=65),
            "--max-length 65: .* has positions for 64 tokens only",
            UsageError,
        )


class TestFingerprint:
    """Stable for equal contents, different for any change."""

    def test_stable_and_independent_of_the_place(self, tiny: Path, copy: Path) -> None:
        assert fingerprint_of(tiny).digest == fingerprint_of(tiny).digest == fingerprint_of(copy).digest

    @pytest.mark.parametrize(
        "change",
        [
            lambda f: _flip_last_byte(f / "model.safetensors"),
            lambda f: (f / "chat_template.jinja").write_text(CHAT_TEMPLATE + " "),
            lambda f: (f / "config.json").write_text((f / "config.json").read_text() + "\n"),
            lambda f: (f / "tokenizer_config.json").write_text((f / "tokenizer_config.json").read_text() + "\n"),
        ],
        ids=["weight", "template", "config", "tokenizer"],
    )
    def test_any_change_shows(self, copy: Path, change: Callable[[Path], Any]) -> None:
        before = fingerprint_of(copy).digest
        change(copy)
        assert fingerprint_of(copy).digest != before

    def test_files_that_decide_nothing_are_left_out(self, copy: Path) -> None:
        before = fingerprint_of(copy).digest
        for name in ("optimizer.pt", "training_args.bin", "README.md", "olmes_lineage.json"):
            (copy / name).write_text("x")
        assert fingerprint_of(copy).digest == before

    def test_settings_and_template_count(self, tiny: Path) -> None:
        plain = fingerprint_of(tiny).digest
        assert (
            len({plain, fingerprint_of(tiny, chat_template="x").digest, fingerprint_of(tiny, settings={"a": 1}).digest})
            == 3
        )

    def test_settled_files_are_hashed_once(self, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hashed: list[str] = []
        real = fingerprints._hash_file

        def counted(file: Path) -> Any:
            hashed.append(file.name)
            return real(file)

        monkeypatch.setattr(fingerprints, "_hash_file", counted)
        old = time.time() - 60
        for file in copy.iterdir():
            os.utime(file, (old, old))
        first = fingerprint_of(copy).digest
        count = len(hashed)
        assert fingerprint_of(copy).digest == first
        assert len(hashed) == count > 3
        _flip_last_byte(copy / "model.safetensors")
        assert fingerprint_of(copy).digest != first
        assert hashed[count:] == ["model.safetensors"]

    @pytest.mark.parametrize("kind", ["file", "garbage", "unwritable"])
    def test_a_cache_that_cannot_be_used_does_no_harm(self, tiny: Path, cache: Path, kind: str) -> None:
        expected = fingerprint_of(tiny).digest
        shutil.rmtree(cache, ignore_errors=True)
        if kind == "file":
            cache.write_text("in the way")
        else:
            cache.mkdir()
            (cache / "hashes.sqlite").write_text("not a database " * 100)
            cache.chmod(0o555 if kind == "unwritable" else 0o755)
        assert fingerprint_of(tiny).digest == expected
        if cache.is_dir():
            cache.chmod(0o755)

    def test_a_hub_checkpoint_is_its_commit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        place = tmp_path / "snapshots" / ("a" * 40) / "config.json"
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: str(place))
        assert fingerprint_of("org/model").commit == "a" * 40
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: None)
        one_line(lambda: fingerprint_of("org/model"), "commit", ModelError)
        assert hub_commit("org/model", "b" * 40) == "b" * 40


def _flip_last_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))


class TestModelless:
    """mock, oracle and floor."""

    def test_mock_is_deterministic_and_follows_the_seed_of_sampled_requests(self) -> None:
        greedy, sampled = generation(0), generation(0, temperature=0.8)
        assert answers(MockBackend(), [greedy], [[1]]) == answers(MockBackend(), [greedy], [[2]])
        one, two = answers(MockBackend(), [sampled], [[1, 2]])
        assert one != two
        assert answers(MockBackend(), [sampled], [[1, 2]]) == [one, two]
        assert len({r.text for r in answers(MockBackend(), [generation(i) for i in range(16)])}) > 12
        assert MockBackend().fingerprint == MockBackend("x").fingerprint

    def test_mock_keeps_to_stop_strings_and_limits(self) -> None:
        for response in answers(MockBackend(), [generation(i, stop=("answer",), max_tokens=6) for i in range(16)]):
            assert "answer" not in (response.text or "")
            assert len((response.raw or response.text or "").split()) <= 6
            assert response.finish_reason in ("stop", "length")

    def test_mock_scores_choices(self) -> None:
        scored = answers(MockBackend(), [choice(0, i, "Q", c) for i, c in enumerate("ABCD")])
        assert len({r.loglikelihood for r in scored}) == 4
        assert all(r.loglikelihood is not None and r.loglikelihood <= 0 for r in scored)

    def test_mock_is_quick(self) -> None:
        requests = [generation(i, PROMPTS[0] * 200 + str(i)) for i in range(1319)]
        start = time.process_time()
        assert len(answers(MockBackend(), requests)) == 1319
        assert time.process_time() - start < 0.5  # about 0.05 s on a quiet machine

    def test_nothing_here_imports_torch(self) -> None:
        import subprocess
        import sys

        code = (
            "import sys; from olmes_suite.models import factory\n"
            "from olmes_suite.models.local import checkpoint, fingerprint\n"
            "from olmes_suite.models.without_model import floor, mock, oracle; sys.exit('torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_oracle_answers_with_the_gold(self) -> None:
        def gold(request: Request) -> str | float | None:
            return f"gold {request.doc_id}" if request.kind == "generate" else -float(request.index)

        backend = OracleBackend(gold)
        found = answers(backend, [generation(3), choice(0, 0, "Q", "A"), choice(0, 1, "Q", "B")], [[0, 0], [0], [0]])
        assert [r.text for r in found[:2]] == ["gold 3"] * 2
        assert [r.loglikelihood for r in found[2:]] == [0.0, -1.0]

    def test_oracle_without_gold_names_the_task(self) -> None:
        one_line(
            lambda: answers(OracleBackend(lambda request: None), [generation(0)]),
            "tulu3_test: has no gold",
            RequestFailed,
        )
        one_line(lambda: answers(OracleBackend(lambda request: 1.0), [generation(0)]), "tulu3_test", RequestFailed)
        one_line(
            lambda: answers(OracleBackend(lambda request: "x"), [choice(0, 0, "", "A")]), "tulu3_test", RequestFailed
        )

    def test_floor_says_the_same_to_all_and_prefers_nothing(self) -> None:
        found = answers(FloorBackend(), [generation(0), choice(0, 0, "Q", "A"), choice(0, 1, "Q", "long one")])
        assert found[0].text == "Spring"
        assert {r.loglikelihood for r in found[1:]} == {-1.0}
        assert len({FloorBackend(name).fingerprint for name in ANSWERS}) == len(ANSWERS) == 4

    def test_the_floors_answers_keep_to_the_request(self) -> None:
        short = replace(generation(0), max_tokens=3, stop=("much",))
        said = {name: answers(FloorBackend(name), [short])[0].text for name in ANSWERS}
        asked = short.messages[-1][1] if short.messages else short.text
        assert said == {
            "empty": "",
            "word": "Spring",
            "echo": " ".join(str(asked).split(" ")[:3]),
            "filler": "There is ",
        }
        one_line(lambda: FloorBackend("silence"), "empty, word, echo, filler", UsageError)

    @pytest.mark.parametrize("backend", [MockBackend(), FloorBackend(), OracleBackend(lambda request: "x")])
    def test_samples_on_disk_are_not_asked_for_again(self, backend: Backend) -> None:
        found = list(backend.run([generation(0), generation(1)], [[None, 5], [None, None]]))
        assert [item[:2] for item in found] == [(0, 1)]


class Foreign(MockBackend):
    """Another package's backend."""

    def __init__(self, model: str, *, base_url: str | None = None) -> None:
        super().__init__(model)
        self.base_url = base_url


class TestWithoutModel:
    """What the backends without a model share."""

    class Counting(WithoutModel):
        name = "counting"
        fingerprint = "counting"
        requests = 0

        def respond(self, request: Request, seeds: Sequence[int]) -> list[Response]:
            self.requests += 1
            return [Response(text=f"{request.doc_id} {seed}") for seed in seeds]

    def test_a_request_is_answered_for_the_samples_that_are_asked_for(self) -> None:
        asked = [replace(generation(0), doc_id=number) for number in range(4)]
        backend = self.Counting()
        given = [(at, s, r.text) for at, s, r in backend.run(asked, [[5, None, 6], [None], [], [7]])]
        assert given == [(0, 0, "0 5"), (0, 2, "0 6"), (3, 0, "3 7")]
        assert backend.requests == 2  # what is not asked for costs nothing

    def test_it_stops_between_requests(self) -> None:
        backend, given = self.Counting(), []
        for answer in backend.run([generation(0)] * 3, [[1, 2]] * 3):
            given.append(answer)
            backend.stop_requested = True
        assert len(given) == 2


class TestFactory:
    """Names and options."""

    def test_built_in_names(self, tiny: Path) -> None:
        assert isinstance(make_backend("mock", None, batch_size=4, seed=1), MockBackend)
        assert isinstance(make_backend("floor", None, answer="echo"), FloorBackend)
        assert isinstance(make_backend("oracle", None, answers=lambda request: "x"), OracleBackend)
        assert type(make_backend("auto", str(tiny), device="cpu", dtype=None)).__name__ == "HFBackend"

    def test_wrong_names_and_options(self, tiny: Path) -> None:
        one_line(lambda: make_backend("moc", None), "did you mean 'mock'", UsageError)
        one_line(lambda: make_backend("zzz", "x"), "known: auto, hf", UsageError)
        one_line(lambda: make_backend("hf", None), "needs --model", UsageError)
        one_line(lambda: make_backend("hf", str(tiny), base_url="x"), "no option --base-url", UsageError)
        one_line(lambda: make_backend("oracle", None), "needs --answers", UsageError)

    @pytest.fixture
    def points(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        from importlib.metadata import EntryPoint

        made = [
            EntryPoint("foreign", f"{__name__}:Foreign", "olmes.backends"),
            EntryPoint("gone", "no_such_module_here:X", "olmes.backends"),
        ]
        monkeypatch.setattr("importlib.metadata.entry_points", lambda group: made)
        yield

    @pytest.mark.usefixtures("points")
    def test_entry_points(self) -> None:
        backend = make_backend("foreign", "m", base_url="http://x", seed=1)
        assert isinstance(backend, Foreign)
        assert (backend.model, backend.base_url) == ("m", "http://x")
        assert "foreign" in backend_names()
        one_line(lambda: make_backend("gone", "m"), "cannot be imported", UsageError)
