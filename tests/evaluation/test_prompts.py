"""Prompts as the model receives them: `olmes prompts --model`, and the first prompt of each task in a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models_fixture import CHAT_TEMPLATE, generation, make_tiny_model, one_line

import olmes_suite as olmes
from olmes_suite.errors import DataError, ModelError, UsageError
from olmes_suite.models.openai.backend import OpenAIBackend
from olmes_suite.records import Request
from olmes_suite.runs.schema import FirstPrompt, Prompts, read_prompts, write_prompts
from olmes_suite.workers.engine import Engine, Recipe

Cli = Callable[..., tuple[int, str, str]]
TASKS = ("gsm8k", "mmlu_mc_virology")


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture(scope="module")
def long_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose context holds the few-shot prompts."""
    return make_tiny_model(tmp_path_factory.mktemp("long") / "long", max_length=4096)


@pytest.fixture(scope="module")
def run(long_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    store = tmp_path_factory.mktemp("runs")
    return olmes.evaluate(long_checkpoint, task=TASKS, data="sample", limit=1, runs=store, backend="hf", device="cpu")


def test_the_text_and_its_tokens_are_those_of_the_tokenizer(cli: Cli, long_checkpoint: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(long_checkpoint)
    status, out, _ = cli("prompts", "--task", "gsm8k", "--data", "sample", "--limit", "2", "--model", long_checkpoint)
    assert status == 0
    for line in lines(out):
        chat = tokenizer.apply_chat_template(line["messages"], tokenize=False, add_generation_prompt=True)
        assert line["rendered"] == chat + line["prefix"] and line["rendered"].endswith("<|assistant|>\nAnswer:")
        assert line["prompt_tokens"] == len(tokenizer.encode(line["rendered"], add_special_tokens=False))
        assert line["truncated"] is False


def test_a_choice_has_its_own_tokens(long_checkpoint: Path) -> None:
    found = list(olmes.prompts("mmlu_mc_virology", data="sample", doc_ids=[0], model=long_checkpoint))
    assert [line["continuation"] for line in found] == ["A", "B", "C", "D"]
    assert {line["continuation_tokens"] for line in found} == {2}  # the template's last line break belongs to it
    assert len({line["rendered"] for line in found}) == 1


def test_a_prompt_beyond_the_context_is_marked(long_checkpoint: Path) -> None:
    given = {"data": "sample", "doc_ids": [0], "model": long_checkpoint}
    (whole,) = olmes.prompts("popqa", **given)
    (cut,) = olmes.prompts("popqa", max_length=40, **given)
    assert cut["rendered"] == whole["rendered"] and not whole["truncated"]
    assert cut["truncated"] and cut["prompt_tokens"] < 40 < whole["prompt_tokens"]


def test_only_the_tokenizer_is_read(cli: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_checkpoint / name, folder)
    given = ("prompts", "--task", "popqa", "--data", "sample", "--limit", "1", "--model")
    assert cli(*given, folder)[1] == cli(*given, tiny_checkpoint, "--max-length", "2048")[1]
    (folder / "model.safetensors").write_bytes(b"no weights")
    assert cli(*given, folder)[0] == 0
    (folder / "tokenizer.json").unlink()
    status, _, err = cli(*given, folder)
    assert status == 2 and "has no tokenizer" in err and "Traceback" not in err


def test_another_template_and_plain_text(cli: Cli, tiny_checkpoint: Path, tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("<<" + CHAT_TEMPLATE)
    (line,) = olmes.prompts("popqa", data="sample", limit=1, model=tiny_checkpoint, chat_template=template)
    assert line["rendered"].startswith("<<<|user|>")
    plain = make_tiny_model(tmp_path / "plain", chat_template=False)
    (line,) = olmes.prompts("popqa", data="sample", limit=1, model=plain)
    assert line["text"] == line["rendered"] and "messages" not in line
    for option in ("--chat-template", "--revision", "--max-length"):
        status, _, err = cli("prompts", "--task", "popqa", "--data", "sample", option, "9")
        assert status == 2 and f"{option} needs --model" in err


def test_readable_text(cli: Cli, long_checkpoint: Path) -> None:
    given = ("prompts", "--data", "sample", "--doc-ids", "0", "--text", "--task")
    _, out, _ = cli(*given, "gsm8k", "--model", long_checkpoint)
    assert out.startswith("=== tulu3_gsm8k · document 0 · 1,") and "tokens\n<|user|>\nQuestion: There are" in out
    assert "<|assistant|>\nAnswer:\n[limits] at most 512 tokens" in out and out.endswith("[reference] 7\n\n")
    _, out, _ = cli(*given, "gsm8k")
    assert "=== tulu3_gsm8k · document 0\n[user] Question:" in out and "[assistant starts] Answer:" in out
    _, out, _ = cli(*given, "mmlu_mc_virology", "--model", long_checkpoint)
    assert "[continuation (2 tokens)] A" in out


def test_missing_data_names_the_task(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    status, _, err = cli("prompts", "--task", "gsm8k")
    assert status == 1 and "olmes data pull --task tulu3_gsm8k --out" in err


def test_a_run_keeps_the_first_prompt_of_each_task(run: Any, long_checkpoint: Path) -> None:
    assert set(run.prompts) == {"tulu3_gsm8k", "tulu3_mmlu_mc_virology"}
    for task, first in run.prompts.items():
        line = next(olmes.prompts(task, data="sample", doc_ids=[first.doc_id], model=long_checkpoint))
        assert (first.rendered, first.continuation) == (line["rendered"], line["continuation"])
        response = run.responses(task).iloc[0]
        assert first.prompt_tokens == line["prompt_tokens"] == response["prompt_tokens"]


def test_a_backend_without_a_model_has_no_prompts(tmp_path: Path) -> None:
    mock = olmes.evaluate(backend="mock", task="gsm8k", data="sample", limit=1, runs=tmp_path)
    assert not mock.prompts and not (mock.path / "prompts.json").exists()
    assert Engine(Recipe("mock", None)).tell("sent", [generation(0, "a")]) == [None]


def test_a_server_gets_messages() -> None:
    backend = object.__new__(OpenAIBackend)
    backend.model, backend.drop_prefix = "m", False
    asked = [
        Request("t", 0, 0, "generate", messages=(("user", "a"),), prefix="Answer:"),
        Request("t", 1, 0, "generate", text="plain"),
    ]
    chat, plain = backend.sent(asked)
    assert chat is not None and plain is not None
    assert chat.messages == ({"role": "user", "content": "a"}, {"role": "assistant", "content": "Answer:"})
    assert chat.rendered is None and plain.rendered == "plain" and plain.messages is None
    backend.drop_prefix = True
    (dropped, _) = backend.sent(asked)
    assert dropped is not None and dropped.messages == ({"role": "user", "content": "a"},)


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    assert read_prompts(tmp_path) is None
    first = FirstPrompt(doc_id=3, messages=({"role": "user", "content": "a"},))
    write_prompts(tmp_path, Prompts(run="r", tasks={"t": first}))
    assert read_prompts(tmp_path) == Prompts(run="r", tasks={"t": first})
    file = tmp_path / "prompts.json"
    for text, kind in (
        ("{", DataError), ('{"schema": "1.0", "run": 1}', DataError), ('{"schema": "9.0"}', UsageError),
    ):  # fmt: skip
        file.write_text(text)
        one_line(lambda: read_prompts(tmp_path), "prompts.json", kind)


def test_wrong_models(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for model, words in ((tmp_path / "gone", "no such folder"), (tmp_path / "file", "is a file")):
        one_line(lambda model=model: olmes.prompts("popqa", data="sample", model=model), words, ModelError)


def test_an_argument_that_the_template_does_not_use_is_refused(cli: Cli, tiny_checkpoint: Path) -> None:
    """One of a profile, which is for a family of models, is not."""
    given = ("prompts", "--task", "popqa", "--data", "sample", "--limit", "1", "--model", tiny_checkpoint)
    status, _, err = cli(*given, "--chat-template-args", "enable_thinking=false,effort=high")
    assert status == 2 and "--chat-template-args enable_thinking=false: the model's chat template does not use" in err
    assert len(err.splitlines()) == 1
    assert cli(*given, "--profile", "qwen3_no_think")[0] == 0
