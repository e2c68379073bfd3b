"""`olmes train merge`: means of tensors against formulas, lineage, and checkpoints that do not fit together."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import olmes, one_line_error
from train_fixture import need_trl, refused, weights

from olmes_suite.errors import ModelError, UsageError
from olmes_suite.models.local.checkpoint import check_folder
from olmes_suite.runs.schema import Ancestor, Lineage, read_lineage, write_lineage

need_trl()

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from train_plugins.checkpoints import blending, merging  # noqa: E402
from train_plugins.checkpoints.lineage import FILE  # noqa: E402


@pytest.fixture
def three(tmp_path: Path, tiny_checkpoint: Path) -> list[str]:
    """Checkpoints whose tensors differ at random."""
    folders = []
    for number in range(3):
        folder = tmp_path / f"c{number}"
        shutil.copytree(tiny_checkpoint, folder)
        generator = torch.Generator().manual_seed(number)
        tensors = load_file(folder / "model.safetensors")
        moved = {name: one + torch.randn(one.shape, generator=generator) for name, one in tensors.items()}
        save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
        folders.append(str(folder))
    return folders


def test_the_linear_merge_is_the_weighted_mean(three: list[str], tmp_path: Path) -> None:
    assert merging.merge(three, tmp_path / "out", weights=[1, 2, 1]) == []
    found, parts = weights(tmp_path / "out"), [weights(Path(one)) for one in three]
    assert found.keys() == parts[0].keys()
    for name, tensor in found.items():
        wanted = 0.25 * parts[0][name].double() + 0.5 * parts[1][name].double() + 0.25 * parts[2][name].double()
        assert tensor.dtype == parts[0][name].dtype and bool((tensor - wanted).abs().max() < 1e-6)
    check_folder(tmp_path / "out")
    assert not (tmp_path / "out" / merging.PART).exists()


def test_slerp_goes_along_the_arc() -> None:
    first, second = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 2.0])
    found = blending.slerp([first, second], [0.75, 0.25])
    assert found.tolist() == pytest.approx([3 * math.sin(0.75 * math.pi / 2), 2 * math.sin(0.25 * math.pi / 2)])
    unit = blending.slerp([first / 3, second / 2], [0.4, 0.6])
    assert float(unit.norm()) == pytest.approx(1) and math.atan2(*unit.flip(0).tolist()) == pytest.approx(0.3 * math.pi)
    for parallel in (2 * first, torch.zeros(2)):  # no arc
        assert torch.equal(blending.slerp([first, parallel], [0.5, 0.5]), (first + parallel) / 2)


def test_slerp_at_its_ends_is_the_checkpoint_itself(three: list[str], tmp_path: Path) -> None:
    for number, shares in enumerate(([1.0, 0.0], [0.0, 3.0])):
        merging.merge(three[:2], tmp_path / f"end{number}", weights=shares, method="slerp")
        found, end = weights(tmp_path / f"end{number}"), weights(Path(three[number]))
        assert all(bool((found[name] - end[name]).abs().max() < 1e-6) for name in end)


def test_large_checkpoints_are_written_in_several_files(three: list[str], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    sources = [merging.read(one, 1 / 3) for one in three]
    (tmp_path / "out").mkdir()
    merging.write_weights(sources, tmp_path / "out", "linear", limit=10_000)
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 2
    shutil.copyfile(Path(three[0]) / "config.json", tmp_path / "out/config.json")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    merging.merge(three, tmp_path / "whole")
    whole = weights(tmp_path / "whole")
    assert all(torch.equal(one, whole[name]) for name, one in model.state_dict().items() if name in whole)


def test_half_precision_is_computed_in_whole() -> None:
    parts = [torch.tensor([1.0, 1.0078125]).bfloat16(), torch.tensor([1.0078125, 1.0]).bfloat16()]
    assert blending.linear(parts, [0.5, 0.5]).tolist() == [1.00390625, 1.00390625]


def test_the_lineage_holds_what_any_checkpoint_has_seen(three: list[str], tmp_path: Path) -> None:
    base = Ancestor(checkpoint="base")
    common: dict[str, Any] = {"root": "base", "stage": "sft", "step": 5, "ancestors": (base,)}
    write_lineage(Path(three[0]) / FILE, Lineage(flags={"gsm8k": (1, 2)}, scanned=("drop", "gsm8k"), **common))
    write_lineage(Path(three[1]) / FILE, Lineage(flags={"gsm8k": (2, 9)}, scanned=("gsm8k",), **common))
    merging.merge(three[:2], tmp_path / "out", weights=[3, 1])
    found = read_lineage(tmp_path / "out" / FILE)
    assert (found.stage, found.root, found.parent) == ("merge", "base", three[0])
    assert found.flags == {"gsm8k": (1, 2, 9)} and found.scanned == ("gsm8k",)
    assert [one.checkpoint for one in found.ancestors] == ["base", three[0], three[1]]
    assert found.recipe["merge"]["models"] == [{"path": three[0], "weight": 0.75}, {"path": three[1], "weight": 0.25}]
    assert "`merge`" in (tmp_path / "out/README.md").read_text()


def test_checkpoints_that_do_not_fit(three: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"

    def bad(match: str, *folders: str, kind: Any = UsageError, **keys: Any) -> None:
        refused(lambda: merging.merge(folders or three[:2], out, **keys), match, kind)
        assert not out.exists()

    def change(folder: str, file: str, **values: Any) -> None:
        content = json.loads((Path(folder) / file).read_text())
        (Path(folder) / file).write_text(json.dumps({**content, **values}))

    bad("name two checkpoints or more", three[0])
    bad("slerp joins two checkpoints, not 3", *three, method="slerp")
    bad("3 weights for 2 checkpoints", weights=[1, 1, 1])
    bad("must be 0 or above, not -1", weights=[2, -1])
    bad("must be 0 or above, not nan", weights=[math.nan, 1])
    bad("all weights are 0", weights=[0, 0])
    bad("is no folder; download it first", "org/model", three[0], kind=ModelError)
    bad("no such folder", str(tmp_path / "nowhere"), three[0], kind=ModelError)
    change(three[1], "config.json", torch_dtype="bfloat16", use_cache=False)  # harmless
    change(three[1], "config.json", rms_norm_eps=0.5)
    bad(r"c1 does not fit .*c0: rms_norm_eps is 0.5 in its config.json, and 1e-06")
    change(three[1], "config.json", rms_norm_eps=1e-6, model_type="qwen3")
    bad('model_type is "qwen3" in its config.json, and "llama"')
    tensors = load_file(Path(three[2]) / "model.safetensors")
    name = next(iter(tensors))
    save_file({**tensors, "more": torch.zeros(2)}, Path(three[2]) / "model.safetensors")
    bad("1 tensors are in one only, more is in .*c2", three[0], three[2])
    save_file({**tensors, name: torch.zeros(2)}, Path(three[2]) / "model.safetensors")
    bad(rf"{name} has shape \[2\], and ", three[0], three[2])
    save_file(tensors, Path(three[2]) / "model.safetensors")
    words = json.loads((Path(three[2]) / "tokenizer.json").read_text())
    words["added_tokens"][-1]["content"] += "x"
    (Path(three[2]) / "tokenizer.json").write_text(json.dumps(words))
    bad("their tokenizers have other tokens or ids", three[0], three[2])
    refused(lambda: merging.merge(three[:2], Path(three[0])), "is one of the checkpoints to merge", UsageError)


def test_weights_that_have_no_mean(three: list[str], tmp_path: Path) -> None:
    file, out = Path(three[1]) / "model.safetensors", tmp_path / "out"
    sound = load_file(file)
    name = list(sound)[-1]
    save_file({**sound, name: torch.full_like(sound[name], math.nan)}, file, metadata={"format": "pt"})
    refused(lambda: merging.merge(three[:2], out), rf"c1: {name} holds numbers that are not finite", ModelError)
    assert not out.exists(), "nothing is left of a merge that failed"
    save_file(sound, file, metadata={"format": "pt"})
    for folder in three[:2]:
        config = Path(folder) / "config.json"
        config.write_text(
            json.dumps({**json.loads(config.read_text()), "quantization_config": {"quant_method": "fp8"}})
        )
    refused(lambda: merging.merge(three[:2], out), "c0 is quantised", ModelError)


def test_only_the_weights_that_the_model_reads_are_merged(three: list[str], tmp_path: Path) -> None:
    for folder in three[:2]:
        save_file({"old.weight": torch.ones(2)}, Path(folder) / "consolidated.safetensors")
    merging.merge(three[:2], tmp_path / "out")
    assert weights(tmp_path / "out").keys() == load_file(Path(three[0]) / "model.safetensors").keys()


def test_a_merge_killed_at_any_file_leaves_no_checkpoint_without_lineage(
    three: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merging.merge(three[:2], tmp_path / "whole")
    for count in range(len(list((tmp_path / "whole").iterdir()))):
        out, moved, real = tmp_path / f"out{count}", [0], Path.replace

        def replace(path: Path, target: Path, moved: list[int] = moved, last: int = count, move: Any = real) -> Path:
            if path.parent.name == merging.PART:
                if moved[0] == last:
                    raise KeyboardInterrupt
                moved[0] += 1
            found: Path = move(path, target)
            return found

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Path, "replace", replace)
            merging.merge(three[:2], out)
        assert not (out / "config.json").exists() or (out / FILE).exists()
        merging.merge(three[:2], out)
        assert sorted(path.name for path in out.iterdir()) == sorted(
            path.name for path in (tmp_path / "whole").iterdir()
        )


def test_a_note_says_which_template_is_kept(three: list[str], tmp_path: Path) -> None:
    (Path(three[1]) / "chat_template.jinja").write_text("{{ messages }}")
    write_lineage(Path(three[0]) / FILE, Lineage(root="base", scanned=()))
    notes = merging.merge(three[:2], tmp_path / "out")
    assert "c1 has another chat template; that of" in notes[0]
    assert "c0 from base; looks at the unseen suite are counted under the latter" in notes[1]


@pytest.mark.long
def test_the_command_line(three: list[str], tmp_path: Path) -> None:
    weight = ["--weight", "1", "--weight", "1", "--weight", "2"]
    done = olmes("train", "merge", *three, "--out", tmp_path / "m", *weight, tmp=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "m")), done.stderr
    assert "not linear or slerp, did you mean 'slerp'" in one_line_error(
        olmes("train", "merge", *three[:2], "--out", tmp_path / "n", "--method", "slrp", tmp=tmp_path)
    )
    assert "Missing option '--out'" in one_line_error(olmes("train", "merge", *three[:2], tmp=tmp_path))
