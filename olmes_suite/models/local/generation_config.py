"""A checkpoint's generation_config, field by field: what is honoured, what is noted, and what changes no answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers

from olmes_suite.models.local.adapter import adapter_of
from olmes_suite.models.local.checkpoint import is_hub_id
from olmes_suite.models.local.forms import check_generation

FILE = "generation_config.json"
ENDS = ("eos_token_id", "stop_strings")
"""Ends of answers, which every backend honours."""
PENALTY = "repetition_penalty"
"""Honoured by every backend, for requests without their own."""
PROCESSED: Mapping[str, tuple[object, ...]] = {
    "no_repeat_ngram_size": (0,), "min_length": (0,), "min_new_tokens": (0,), "bad_words_ids": ([],),
    "suppress_tokens": ([],), "begin_suppress_tokens": ([],), "sequence_bias": ({}, []), "forced_bos_token_id": (),
    "forced_eos_token_id": (), "exponential_decay_length_penalty": (), "guidance_scale": (1, 1.0),
    "encoder_repetition_penalty": (1, 1.0), "encoder_no_repeat_ngram_size": (0,),
}  # fmt: skip
"""Fields by which transformers changes greedy answers, also under lm-eval, with the values that have no effect."""
SAMPLING: Mapping[str, tuple[object, ...]] = {
    "do_sample": (False,), "temperature": (1, 1.0), "top_p": (1, 1.0), "top_k": (0, -1), "min_p": (0, 0.0),
    "top_h": (), "typical_p": (1, 1.0), "epsilon_cutoff": (0, 0.0), "eta_cutoff": (0, 0.0), "max_new_tokens": (),
    "max_length": (20,),
}  # fmt: skip
"""Fields that the task sets, or the user, with the values that say nothing. The checkpoint's are named in a note."""
IGNORED: Mapping[str, tuple[object, ...]] = {
    "max_time": (), "num_beams": (1,), "num_beam_groups": (1,), "diversity_penalty": (0, 0.0),
    "penalty_alpha": (0, 0.0), "dola_layers": (), "constraints": ([],), "force_words_ids": ([],),
    "length_penalty": (1, 1.0), "early_stopping": (False,), "num_return_sequences": (1,), "watermarking_config": (),
    "token_healing": (False,), "remove_invalid_values": (False,), "decoder_start_token_id": (),
}  # fmt: skip
"""Fields that would change answers and are not honoured, with the values that have no effect. A note names the rest."""
NO_EFFECT = frozenset(
    {"use_mtp", "use_cache", "cache_implementation", "cache_config", "max_cache_len", "renormalize_logits",
     "output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate",
     "return_legacy_cache", "pad_token_id", "bos_token_id", "is_assistant", "num_assistant_tokens",
     "num_assistant_tokens_schedule", "assistant_confidence_threshold", "prompt_lookup_num_tokens",
     "max_matching_ngram_size", "assistant_early_exit", "assistant_lookbehind", "target_lookbehind",
     "assistant_ensemble_weight", "speculation_type", "compile_config", "disable_compile",
     "continuous_batching_config", "low_memory", "prefill_chunk_size", "transformers_version", "generation_kwargs"}
)  # fmt: skip
"""Fields of speed, memory and output, which change no answer."""


@dataclass(frozen=True, slots=True)
class Own:
    """The settings of a checkpoint's generation_config that are applied to its answers."""

    penalty: float = 1.0
    """The repetition penalty of requests without their own."""
    stops: tuple[str, ...] = ()
    processed: Mapping[str, Any] = field(default_factory=dict)
    """The fields of `PROCESSED` that have an effect."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: transformers.GenerationConfig, written: Mapping[str, Any] | None = None) -> Own:
        """Sort the fields of a configuration.

        `written` is the content of its file, since transformers drops names that it does not know.
        """
        both = {**{name: value for name, value in (written or {}).items() if value is not False}, **vars(config)}
        given = {name: value for name, value in both.items() if value is not None and name[:1] != "_"}
        known = {*ENDS, PENALTY, *PROCESSED, *SAMPLING, *IGNORED, *NO_EFFECT}
        stops = given.get("stop_strings") or ()
        return cls(
            float(given.get(PENALTY, 1.0)),
            (stops,) if isinstance(stops, str) else tuple(str(stop) for stop in stops if stop),
            _with_effect(given, PROCESSED),
            _with_effect(given, SAMPLING),
            (*_with_effect(given, IGNORED), *sorted(name for name in given if name not in known)),
        )

    def clean(self) -> transformers.GenerationConfig:
        """Return the configuration for `generate`, which gets everything else from the request."""
        return transformers.GenerationConfig(**self.processed)

    def notes(self, name: str, applies: frozenset[str] = frozenset(PROCESSED)) -> list[str]:
        """Return lines for the user about the model `name`. `applies`: the fields that the engine honours."""
        lines = []
        if self.sampling:
            values = ", ".join(f"{field}={value}" for field, value in self.sampling.items())
            lines.append(
                f"{name}: its generation_config recommends {values}: tasks set their own; use --gen-kwargs or --profile"
            )
        ignored = [*(field for field in self.processed if field not in applies), *self.ignored]
        if ignored:
            lines.append(f"{name}: its generation_config sets {', '.join(ignored)}, which is ignored")
        return lines


def written(model: str, revision: str | None) -> dict[str, Any]:
    """Return the content of the generation_config file of a folder or Hub id, for an adapter of its base model's.

    It is empty where there is none. Raises ModelError for a field with a wrong value.
    """
    if (adapter := adapter_of(model)) is not None:
        model, revision = adapter.base, adapter.revision
    file: str | Path | None = Path(model).expanduser() / FILE
    if is_hub_id(model):
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(model, FILE, revision=revision or "main")
        file = found if isinstance(found, str) else None
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8")) if file is not None else {}
    except (OSError, ValueError):  # a file that transformers cannot read either
        return {}
    if not isinstance(content, dict):
        return {}
    check_generation(f"{model}: {FILE}" if is_hub_id(model) else str(file), content)
    return content


def _with_effect(given: Mapping[str, Any], fields: Mapping[str, tuple[object, ...]]) -> dict[str, Any]:
    return {name: given[name] for name, neutral in fields.items() if name in given and given[name] not in neutral}
