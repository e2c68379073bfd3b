"""Sentence embeddings: a text becomes unit vectors, one for each window that fits into the encoder.

Reads the folders of `sentence-transformers` (Reimers and Gurevych 2019, arXiv 1908.10084): a transformer, pooling over
its last layer, and a normalisation. As in that package, a checkpoint without their files is pooled by the mean.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from olmes_suite.errors import ModelError
from olmes_suite.judges.encoder import TextEncoder
from olmes_suite.models.local.checkpoint import is_hub_id
from olmes_suite.records import canonical_json, sha256

POOLING = ("mean", "cls", "max", "lasttoken")
_PARTS = ("Transformer", "Pooling", "Normalize")
_PIECE = 1 << 16
"""Characters that are tokenised together, which bounds the memory for a document of any length."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a text that the encoder reads at once."""

    text: int
    """Number of the text."""
    start: int
    end: int
    ids: tuple[int, ...]
    """Token ids, including the special ones."""


class SentenceEncoder(TextEncoder):
    """An encoder of sentences, named by folder or Hub id; it is loaded with the first text.

    Raises ModelError where there is no such checkpoint, or where its modules are not supported.
    """

    option = "--embed"

    def __init__(self, name: str, device: str | None = None, *, batch_size: int = 32) -> None:
        super().__init__(str(Path(name).expanduser()) if not is_hub_id(name) else name, device, layer=-1,
                         batch_size=batch_size)  # fmt: skip
        self.pooling = _pooling(self.name)
        about = _json(self.name, "sentence_bert_config.json") or {}
        self._longest = int(about.get("max_seq_length") or 0)
        self._lower = bool(about.get("do_lower_case"))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the checkpoint's files, its pooling and the settings of its texts."""
        return sha256(canonical_json([self._digest, self.pooling, self._longest, self._lower]))

    def windows(self, texts: Sequence[str]) -> list[Window]:
        """Cut each text into windows that overlap by a quarter; a text without tokens has none."""
        self._load()
        windows: list[Window] = []
        for number, text in enumerate(texts):
            for at in range(0, len(text), _PIECE):
                windows += self._cut(text[at : at + _PIECE], number, at)
        return windows

    def _load(self) -> None:
        fresh = self._model is None
        super()._load()
        if fresh:
            if not self.tokenizer.is_fast:
                raise ModelError(f"--embed {self.name}: its tokenizer reports no positions; it needs a fast tokenizer")
            self.max_length = min(self.max_length, self._longest or self.max_length)

    def _cut(self, text: str, number: int, at: int) -> list[Window]:
        encoding = self.tokenizer(
            text.lower() if self._lower and len(text.lower()) == len(text) else text, truncation=True,
            max_length=self.max_length, stride=self.max_length // 4, return_overflowing_tokens=True,
            return_offsets_mapping=True, return_special_tokens_mask=True,
        )  # fmt: skip
        windows = []
        for ids, offsets, special in zip(
            encoding["input_ids"], encoding["offset_mapping"], encoding["special_tokens_mask"], strict=True
        ):
            text_spans = [span for span, apart in zip(offsets, special, strict=True) if not apart]
            if text_spans:
                windows.append(Window(number, at + text_spans[0][0], at + text_spans[-1][1], tuple(ids)))
        return windows

    def vectors(self, windows: Sequence[Window]) -> NDArray[np.float32]:
        """Embed windows as unit vectors [windows, size]."""
        self._load()
        order = sorted(range(len(windows)), key=lambda i: len(windows[i].ids))
        out = np.zeros((len(windows), self._model.config.hidden_size), np.float32)
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            out[batch] = self._pooled([windows[i].ids for i in batch])
        return out

    def _pooled(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        import torch

        longest = max(map(len, batch))
        ids = torch.full((len(batch), longest), self.tokenizer.pad_token_id or 0)
        mask = torch.zeros((len(batch), longest), dtype=torch.bool)
        for row, token_ids in enumerate(batch):
            ids[row, : len(token_ids)] = torch.tensor(token_ids)
            mask[row, : len(token_ids)] = True
        with torch.inference_mode():
            states = self._model(input_ids=ids.to(self.device), attention_mask=mask.long().to(self.device))
            states = states.last_hidden_state.float().cpu()
        weights = mask.unsqueeze(-1)
        if self.pooling == "cls":
            pooled = states[:, 0]
        elif self.pooling == "lasttoken":
            pooled = states[torch.arange(len(batch)), mask.sum(1) - 1]
        elif self.pooling == "max":
            pooled = states.masked_fill(~weights, -torch.inf).amax(1)
        else:
            pooled = (states * weights).sum(1) / weights.sum(1)
        vectors: NDArray[np.float32] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
        return vectors


def _pooling(name: str) -> str:
    """Read how the checkpoint pools token vectors. Raises ModelError for modules or pooling that are not supported."""
    modules = _json(name, "modules.json") or []
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    if unknown := [kind for kind in kinds if kind not in _PARTS]:
        raise ModelError(f"--embed {name}: its module {unknown[0]} is not supported; supported are {', '.join(_PARTS)}")
    path = next((m["path"] for m, kind in zip(modules, kinds, strict=True) if kind == "Pooling"), "1_Pooling")
    about = _json(name, f"{path}/config.json") or {"pooling_mode": "mean"}
    mode = about.get("pooling_mode")
    chosen = [mode] if isinstance(mode, str) else [
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for key, value in about.items()
        if key.startswith("pooling_mode_") and value is True
    ]  # fmt: skip
    if len(chosen) != 1 or chosen[0] not in POOLING:
        mode = " and ".join(chosen) or "none"
        raise ModelError(f"--embed {name}: its pooling is {mode}; supported is one of {', '.join(POOLING)}")
    return chosen[0]


def _json(name: str, file: str) -> Any:
    """Read a JSON file of the checkpoint; None where it does not exist."""
    path: Path | None = Path(name) / file
    if is_hub_id(name):
        from huggingface_hub import hf_hub_download

        try:
            path = Path(hf_hub_download(name, file))
        except Exception:  # the Hub's client raises many types, all of which mean that the file is not available
            path = None
    if path is None or not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"--embed {name}: {file} is not JSON ({error})") from error
