"""Supervised fine-tuning: the loss against a formula, the template's mask, resuming, lineage, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from models_fixture import make_tiny_tokenizer
from rounding import gradient_limit
from stop_after import StopAfter
from train_fixture import Poison, chat, losses, make_recipe, need_trl, refused, sft_rows, weights, write_rows

from olmes_suite.errors import DataError, ModelError, OlmesError, RunLocked, StageRefused, StorageError, UsageError
from olmes_suite.hooks import Stage, StageData, hookimpl
from olmes_suite.runs.ledger import lineage_name, lineage_of
from train_plugins.checkpoints import lineage, resume
from train_plugins.data import encoding
from train_plugins.running.prepare_stage import configuration, prepare, trainer_arguments
from train_plugins.running.train_stage import run
from train_plugins.stages import registry

need_trl()
pytestmark = pytest.mark.long
LIMIT = gradient_limit(500)  # eight rows hold 495 tokens


def train(folder: Path, rows: list[dict[str, Any]], go_on: bool = False, plugins: Any = (), **keys: Any) -> Path:
    data = write_rows(folder / "rows.jsonl", rows)
    return run(registry.find("sft"), make_recipe("sft", folder, data, **keys), go_on, plugins)


def first_gradient(
    folder: Path, each: int, passes: int, loss: str, packing: bool = False
) -> tuple[dict[str, Any], float]:
    """Gradients of the first optimiser step over eight rows, and the step's loss."""
    from transformers import TrainerCallback

    data = write_rows(folder / "rows.jsonl", sft_rows(8))
    settings = {"per_device_train_batch_size": each, "gradient_accumulation_steps": passes, "max_steps": 1,
                "packing": packing, "max_grad_norm": 0.0}  # fmt: skip
    wanted = make_recipe("sft", folder, data, sft={"loss": loss}, trainer=settings, output=str(folder / f"g{each}"))
    stage = registry.find("sft")
    wanted, arguments = trainer_arguments(stage, wanted)
    ready = prepare(stage, wanted, arguments)
    args = configuration(stage.config(), arguments, wanted)
    trainer = stage.trainer(wanted, args, ready.encoded.rows, ready.tokenizer)
    seen: dict[str, Any] = {}

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **_):
            seen.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})

    trainer.add_callback(Keep())
    trainer.train()
    return seen, trainer.state.log_history[0]["loss"]


def by_hand(folder: Path) -> tuple[dict[str, Any], float, int]:
    """Gradient and value of the sum of the token losses, row by row, with the mask found by searching the text."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "tiny", dtype=torch.float32)
    tokenizer = make_tiny_tokenizer()
    total, count = torch.zeros(()), 0
    for row in sft_rows(8):
        text, spans = "", []
        for turn in row["messages"]:
            text += ("" if not text else "\n" if text.endswith("</s>") else "") + f"<|{turn['role']}|>\n"
            start = len(text)
            text += turn["content"] + ("</s>" if turn["role"] == "assistant" else "\n")
            spans += [(start, len(text))] if turn["role"] == "assistant" else []
        done = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = torch.tensor([done["input_ids"]])
        taught = torch.tensor([any(a <= at < b for a, b in spans) for at, _ in done["offset_mapping"]])
        logs = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        total, count = total - logs[taught[1:]].sum(), count + int(taught.sum())
    total.backward()
    return {name: p.grad for name, p in model.named_parameters()}, float(total.detach()), count


def far(first: dict[str, Any], second: dict[str, Any], scale: float = 1.0) -> float:
    """Largest difference relative to the largest gradient."""
    largest = max(float(value.abs().max()) for value in second.values())
    return max(float((first[name] - scale * second[name]).abs().max()) for name in second) / (scale * largest)


def test_the_sum_loss_is_the_sum_for_every_split(train_folder: Path) -> None:
    wanted, value, count = by_hand(train_folder)
    for each, passes in ((8, 1), (2, 4), (1, 8)):
        found, loss = first_gradient(train_folder, each, passes, "sum")
        assert far(found, wanted) < LIMIT, (each, passes)
        assert loss == pytest.approx(value, rel=LIMIT)
    found, loss = first_gradient(train_folder, 4, 2, "mean")
    assert far(found, wanted, 1 / count) < LIMIT
    assert loss == pytest.approx(value / count, rel=LIMIT)


def test_packed_documents_do_not_see_each_other(train_folder: Path) -> None:
    wanted, value, _ = by_hand(train_folder)
    found, loss = first_gradient(train_folder, 2, 1, "sum", packing=True)
    assert loss == pytest.approx(value, rel=LIMIT)
    assert far(found, wanted) < LIMIT


def test_the_template_marks_answers_and_ends_of_turns() -> None:
    tokenizer = encoding.prepare_tokenizer(make_tiny_tokenizer(), encoding.template_text("tulu"))
    turns = chat("hi\n", " yes", "b", "c", system="S")
    assert tokenizer.apply_chat_template(turns, tokenize=False) == (
        "<|system|>\nS\n<|user|>\nhi\n\n<|assistant|>\n yes</s>\n<|user|>\nb\n<|assistant|>\nc</s>"
    )
    asked = tokenizer.apply_chat_template(turns[:2], tokenize=False, add_generation_prompt=True)
    assert asked == "<|system|>\nS\n<|user|>\nhi\n\n<|assistant|>\n"
    ids, mask = encoding.render(tokenizer, turns)
    assert tokenizer.decode([i for i, kept in zip(ids, mask, strict=True) if kept]) == " yes</s>c</s>"


def test_a_killed_stage_ends_in_the_weights_of_an_unbroken_one(train_folder: Path) -> None:
    settings = {"num_train_epochs": 2, "save_steps": 2, "learning_rate": 1e-3}
    keys: dict[str, Any] = {"trainer": settings, "batch_size": 8}
    whole = train(train_folder, sft_rows(24), output=str(train_folder / "whole"), **keys)
    broken = train_folder / "broken"
    with pytest.raises(KeyboardInterrupt):
        train(train_folder, sft_rows(24), output=str(broken), plugins=[StopAfter(4)], **keys)
    assert not (broken / "config.json").exists()
    (broken / "checkpoint-5").mkdir()  # one that was being written
    train(train_folder, sft_rows(24), True, output=str(broken), **keys)
    assert losses(broken) == losses(whole)
    one, other = weights(whole), weights(broken)
    assert all(bool((one[name] == other[name]).all()) for name in one)
    said = lineage.read(broken)
    assert said.step == 6 and said.tokens == lineage.read(whole).tokens
    assert train(train_folder, sft_rows(24), True, output=str(broken), **keys) == broken  # finished: nothing to do

    keys["trainer"] = {**settings, "learning_rate": 2e-3}
    (broken / lineage.FILE).unlink()
    refused(
        lambda: train(train_folder, sft_rows(24), True, output=str(broken), **keys),
        r"trainer\.learning_rate was 0\.001 and is now 0\.002",
        UsageError,
    )
    keys["trainer"] = settings
    refused(
        lambda: train(train_folder, sft_rows(25), True, output=str(broken), **keys),
        "training data.* has changed",
        UsageError,
    )
    refused(lambda: train(train_folder, sft_rows(24), output=str(broken), **keys), "is not empty", UsageError)


def test_a_killed_stage_leaves_a_whole_checkpoint_and_is_gone_on_with_by_its_like(
    train_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: dict[str, Any] = {"trainer": {"save_steps": 1, "save_total_limit": 1}, "batch_size": 8}
    out = train_folder / "out"

    def last(checkpoint: Path, *rest: Any, write: Any = lineage.write) -> Any:
        if checkpoint.name == "checkpoint-3":
            raise KeyboardInterrupt
        return write(checkpoint, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # the third is written but for its lineage
        patch.setattr(lineage, "write", last)
        train(train_folder, sft_rows(32), **keys)
    assert [path.name for path in lineage.whole_checkpoints(out)] == ["checkpoint-2"]
    assert {path.name for path in out.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-3"}
    with resume.lock(out):
        refused(lambda: train(train_folder, sft_rows(32), True, **keys), "is being written by process", RunLocked)
    file = out / "checkpoint-2" / lineage.FILE
    said = file.read_text()
    file.write_text(said.replace('"training_processes": 1', '"training_processes": 2'))
    refused(lambda: train(train_folder, sft_rows(32), True, **keys), "was made by 2 processes, not 1", UsageError)
    file.write_text(said)
    train(train_folder, sft_rows(32), True, **keys)
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-4"]
    assert not (out / resume.LOCK).exists()


def test_every_checkpoint_knows_where_it_comes_from(train_folder: Path) -> None:
    import hashlib

    out = train(train_folder, sft_rows(8), trainer={"save_steps": 1})
    digest = hashlib.sha256((train_folder / "rows.jsonl").read_bytes()).hexdigest()
    for checkpoint, step in ((out / "checkpoint-1", 1), (out, 2)):
        said = lineage_of(str(checkpoint), None)
        assert (said.parent, said.stage, said.step) == (str(train_folder / "tiny"), "sft", step)
        (one,) = said.data
        assert (one.path, one.sha256, one.rows) == (str(train_folder / "rows.jsonl"), digest, 8)
        assert said.recipe["trainer"]["learning_rate"] == 1e-3
        assert said.flags == {} and said.decontam is None
        assert digest in (checkpoint / "README.md").read_text()
    child = lineage.describe(
        Stage("dpo", str(out), train_folder / "next", False, {}), StageData(()), rows={}, seed=0, processes=1
    )
    assert lineage_name(child, str(out)) == str(train_folder / "tiny")
    assert [one.stage for one in child.ancestors] == [None, "sft"]


def test_hooks_see_what_the_one_before_left_and_may_stop_the_stage(train_folder: Path) -> None:
    from dataclasses import replace

    seen: list[Any] = []

    class Filter:
        @hookimpl(tryfirst=True)
        def olmes_before_stage(self, stage, data):
            one = data.sets[0]
            kept = replace(one, rows=one.rows.filter(lambda row: row["row"] != 3))
            return replace(data, sets=(kept,), decontam={"removed": 1}, flags={"tulu3_gsm8k": [7]})

    class Look:
        @hookimpl
        def olmes_before_stage(self, data):
            seen.append(data.sets[0].rows["row"])

        @hookimpl
        def olmes_after_stage(self, checkpoint, run):
            seen.append(run["flags"])

    class Stop:
        @hookimpl(trylast=True)
        def olmes_before_stage(self, data):
            raise StageRefused("planted items")

    wanted = {"decontam": {"suites": ["dev"]}}
    refused(lambda: train(train_folder, sft_rows(9), **wanted), "no installed plugin checked", StageRefused)
    refused(
        lambda: train(train_folder, sft_rows(9), plugins=[Filter(), Stop()], **wanted), "planted items", StageRefused
    )
    assert not (train_folder / "out").exists()
    (train_folder / "out/decontam").mkdir(parents=True)  # a report of that refusal
    out = train(train_folder, sft_rows(9), plugins=[Look(), Filter()], **wanted)
    assert seen == [[0, 1, 2, 4, 5, 6, 7, 8], {"tulu3_gsm8k": [7]}]
    said = lineage.read(out)
    assert said.rows["trained"] == 8 and said.decontam == {"removed": 1}


def test_a_loss_that_is_not_a_number_stops_before_the_weights(
    train_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, out = sft_rows(16), train_folder / "out"

    refused(
        lambda: train(train_folder, rows, plugins=[Poison(monkeypatch)], trainer={"save_steps": 1}),
        "not a number at step 2; the last good checkpoint is .*checkpoint-1",
        StageRefused,
    )
    assert [path.name for path in lineage.whole_checkpoints(out)] == ["checkpoint-1"]
    assert not (out / "config.json").exists()
    assert all(bool(value.isfinite().all()) for value in weights(out / "checkpoint-1").values())


def test_a_full_disk_keeps_the_last_good_checkpoint(train_folder: Path) -> None:
    import resource as limits

    soft, hard = limits.getrlimit(limits.RLIMIT_FSIZE)
    large = (train_folder / "tiny/model.safetensors").stat().st_size

    class Full:
        @hookimpl
        def olmes_after_checkpoint(self, stage, checkpoint):
            limits.setrlimit(limits.RLIMIT_FSIZE, (large * at // 2, hard))

    keys: dict[str, Any] = {"trainer": {"save_steps": 1, "max_steps": 3}}
    for at in (1, 3):  # half the weights fit; the weights fit, the optimiser's state does not
        out = train_folder / f"out-{at}"
        try:
            refused(
                lambda out=out: train(train_folder, sft_rows(16), plugins=[Full()], output=str(out), **keys),
                "cannot write .*the last good checkpoint is .*checkpoint-1; free some space and continue with",
                StorageError,
            )
        finally:
            limits.setrlimit(limits.RLIMIT_FSIZE, (soft, hard))
        assert [path.name for path in out.iterdir()] == ["checkpoint-1"]  # the torn one is gone: it takes up space
    train(train_folder, sft_rows(16), True, output=str(out), **keys)
    whole = train(train_folder, sft_rows(16), output=str(train_folder / "whole"), **keys)
    one, other = weights(whole), weights(out)
    assert all(bool((one[name] == other[name]).all()) for name in one)


def test_checkpoints_that_are_no_language_model(train_folder: Path) -> None:
    import shutil

    from safetensors.torch import save_file

    def bad(match: str, kind: type[OlmesError], change: Any) -> None:
        shutil.rmtree(train_folder / "bad", ignore_errors=True)
        shutil.copytree(train_folder / "tiny", train_folder / "bad")
        change(train_folder / "bad")
        refused(lambda: train(train_folder, sft_rows(8), model=str(train_folder / "bad")), match, kind)
        assert not (train_folder / "out").exists()

    def config(**keys: Any) -> Any:
        def change(place: Path) -> None:
            file = place / "config.json"
            file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))

        return change

    def without_a_layer(place: Path) -> None:
        kept = {name: value for name, value in weights(place).items() if "layers.1.mlp" not in name}
        save_file(kept, place / "model.safetensors", metadata={"format": "pt"})

    bad("lack 3 of the model's tensors", ModelError, without_a_layer)
    bad("have the wrong shape for", ModelError, config(intermediate_size=64))
    bad("does not recognize this architecture", ModelError, config(model_type="llamma"))
    bad("a LlamaModel, not a language model", UsageError, config(architectures=["LlamaModel"]))
    bad("config.json cannot be read", DataError, lambda place: (place / "config.json").write_text("{"))


def test_rows_over_the_limit_are_counted(train_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long_answer, long_question = chat("a", "blue " * 60), chat("blue " * 60, "a")
    rows = [*sft_rows(6), {"messages": long_answer}, {"messages": long_question}]
    out = train(train_folder, rows, trainer={"max_length": 90})
    assert "max_length 90: 1 row is cut, 1 of 8 left out" in capsys.readouterr().err
    assert lineage.read(out).rows == {"read": 8, "trained": 7, "cut": 1, "dropped": 1}
    one = [{"messages": long_question}] * 8
    refused(
        lambda: train(train_folder, one, trainer={"max_length": 90}, output=str(train_folder / "o")),
        "all 8 rows are longer",
        DataError,
    )


def test_bad_input_is_one_line_and_nothing_is_written(train_folder: Path) -> None:
    def bad(match: str, rows: list[dict[str, Any]] | None = None, **keys: Any) -> None:
        refused(lambda: train(train_folder, rows if rows is not None else sft_rows(8), **keys), match)
        assert not (train_folder / "out").exists()

    bad(
        "1 of 9 rows cannot be trained on; row 8 has wrong turn order",
        [*sft_rows(8), {"messages": chat("a", "b")[::-1]}],
    )
    bad("row 0 has wrong turn order", [{"messages": chat("a", "b", "c")}])
    bad("row 0 has an empty assistant turn", [{"messages": chat("a", " \n")}])
    bad("row 0 has no 'messages'", [{"text": "a"}])
    bad("3 rows to train on are fewer than one batch of 4", sft_rows(3))
    bad("neither a shipped template", chat_template="tuluu")
    bad("trainer.per_device_train_batch_size must be at least 1", trainer={"per_device_train_batch_size": 0})
    bad("trainer.learning_rate must be at least 0", trainer={"learning_rate": -1.0})
    bad("num_train_epochs 0.0 trains nothing", trainer={"num_train_epochs": 0.0})
    bad("seed must lie between", seed=-1)
    bad("is a file, not a folder", output=str(train_folder / "rows.jsonl" / "deep"))
    bad("use bfd", trainer={"packing": True, "packing_strategy": "wrapped"})
    bad("batch_size 6 is not a multiple of the 4 rows", batch_size=6)
    bad("give a checkpoint's folder", model=str(train_folder / "nowhere"))
    bad("no such file or folder", files=[{"path": str(train_folder / "nowhere.jsonl")}])
    (train_folder / "torn.jsonl").write_text('{"messages": [\n')
    bad("torn.jsonl, line 1: not JSON", files=[{"path": str(train_folder / "torn.jsonl")}])
    assert json.loads((train_folder / "tiny/config.json").read_text())["model_type"] == "llama"


def test_bad_rows_are_left_out_counted_and_listed(train_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, pair = {"messages": chat("a", "")}, {"instruction": "What is red?", "input": "", "output": "A colour."}
    asked = {"prompt": chat("a", "b", "c"), "completion": "blue"}
    file = write_rows(train_folder / "rows.jsonl", [empty, *sft_rows(6), pair, asked])
    recipe = make_recipe("sft", train_folder, file, files=[{"path": str(file), "bad_rows": "skip"}])
    out = run(registry.find("sft"), recipe)
    said = capsys.readouterr().err
    assert "8 rows (messages 6, alpaca 1, prompt 1)" in said and "1 bad row is left out, see bad_rows.jsonl" in said
    assert json.loads((out / "bad_rows.jsonl").read_text())["reason"] == "row 0 has an empty assistant turn"
    assert lineage.read(out).data[0].bad_rows == 1 and lineage.read(out).rows["trained"] == 8
    assert "Left out because they cannot be trained on: 1 rows of" in (out / "README.md").read_text()
