"""BERTScore: the similarity of two texts by the embeddings of their tokens.

Zhang et al. 2020 (arXiv 1904.09675), equation 1 and its F1, without idf weights and without baseline rescaling, as the
`bert-score` package computes it: special tokens can be matched but have weight 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from olmes_suite.errors import ModelError, first_line
from olmes_suite.judges.checkpoints import digest_of
from olmes_suite.records import canonical_json, sha256

LAYERS = {
    "roberta-large": 17, "roberta-base": 10, "bert-base-uncased": 9, "bert-large-uncased": 18,
    "bert-base-multilingual-cased": 9, "xlm-roberta-large": 17, "microsoft/deberta-xlarge-mnli": 40,
}  # fmt: skip
"""The layer whose embeddings agree best with human judgements, from the table of the `bert-score` package."""
CHUNK = 64
"""Number of pairs whose embeddings are in memory at one time."""


class TextEncoder:
    """An encoder and one of its layers, by default from LAYERS, otherwise the last one.

    Raises ModelError if there is no checkpoint of that name. The model is loaded with the first pair.
    """

    option = "--encoder"
    """The option that names the encoder, for errors."""

    def __init__(self, name: str, device: str | None = None, *, layer: int | None = None, batch_size: int = 32) -> None:
        self.name, self.device_name, self.batch_size = name, device, batch_size
        self.layer = layer if layer is not None else LAYERS.get(name, LAYERS.get(Path(name).name, -1))
        self._digest = digest_of(name)
        self._model: Any = None
        self.pairs = 0

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the checkpoint's files and the layer."""
        return sha256(canonical_json({"checkpoint": self._digest, "layer": self.layer}))

    def record(self) -> dict[str, Any]:
        """Describe the encoder for the manifest."""
        return {"model": self.name, "fingerprint": self.fingerprint, "layer": self.layer, "pairs": self.pairs}

    def f1(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """Compute the BERTScore F1 of each candidate with its reference; 0 if either text is empty."""
        self._load()
        scores: list[float] = []
        for start in range(0, len(candidates), CHUNK):
            pairs = list(zip(candidates[start : start + CHUNK], references[start : start + CHUNK], strict=True))
            embedded = self._embed(sorted({text.strip() for pair in pairs for text in pair}, key=len))
            scores += [_f1(embedded[candidate.strip()], embedded[reference.strip()]) for candidate, reference in pairs]
        self.pairs += len(scores)
        return scores

    def _load(self) -> None:
        if self._model is not None:
            return
        import torch
        from transformers import AutoModel, AutoTokenizer

        from olmes_suite.models.local.loading import pick_device

        self.device = pick_device(self.device_name)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(self.name, trust_remote_code=False)
            model = AutoModel.from_pretrained(self.name, dtype=torch.float32, trust_remote_code=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{self.option} {self.name}: cannot be loaded ({first_line(error)})") from None
        # RoBERTa's byte-level tokens recognise the first word of a text only after a space.
        self.prefix = " " if type(self.tokenizer).__name__.startswith(("Roberta", "GPT2")) else ""
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        self._model = model.eval().to(self.device)
        positions = getattr(model.config, "max_position_embeddings", None) or 512
        if "roberta" in model.config.model_type:  # its positions start after the padding index
            positions -= 2
        self.max_length = min(self.tokenizer.model_max_length, positions)
        self.special = {self.tokenizer.cls_token_id, self.tokenizer.sep_token_id}

    def _embed(self, texts: Sequence[str]) -> dict[str, tuple[Any, Any]]:
        """Embed texts: text to (unit vectors, [tokens, size]; token weights, [tokens], 0 for special tokens)."""
        import torch

        embeddings: dict[str, tuple[Any, Any]] = {}
        for start in range(0, len(texts), self.batch_size):
            batch = list(texts[start : start + self.batch_size])
            encoded = self.tokenizer(
                [self.prefix + text if text else "" for text in batch],
                padding=True, truncation=True, max_length=self.max_length, return_tensors="pt",
            )  # fmt: skip
            ids, mask = encoded["input_ids"], encoded["attention_mask"].bool()
            with torch.inference_mode():
                states = self._model(
                    input_ids=ids.to(self.device), attention_mask=encoded["attention_mask"].to(self.device),
                    output_hidden_states=True,
                ).hidden_states[self.layer]  # fmt: skip
            vectors = torch.nn.functional.normalize(states.float().cpu(), dim=-1)
            for row, text in enumerate(batch):
                tokens = ids[row][mask[row]]
                weights = torch.tensor([float(token not in self.special) for token in tokens.tolist()])
                embeddings[text] = vectors[row][mask[row]], weights
        return embeddings

    def close(self) -> None:
        """Free the model."""
        self._model = None


def _f1(candidate: tuple[Any, Any], reference: tuple[Any, Any]) -> float:
    (vectors, weights), (other_vectors, other_weights) = candidate, reference
    if not float(weights.sum()) or not float(other_weights.sum()):
        return 0.0
    similarity = vectors @ other_vectors.T
    precision = float((similarity.max(dim=1).values * weights).sum() / weights.sum())
    recall = float((similarity.max(dim=0).values * other_weights).sum() / other_weights.sum())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
