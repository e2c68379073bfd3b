"""PPO's value model: a sequence classifier with one label, part of the policy's module while both are trained."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

from olmes_suite.errors import ModelError, one_line
from olmes_suite.models.local.loading import cap_attention
from train_plugins.trainers import lora

FOLDER = "value_model"
"""Folder beside the policy's weights in a checkpoint."""
PREFIX = FOLDER + "."
WRAPPED = "base_model.model."
"""Prefix that peft adds to the names of all weights if the policy has an adapter."""


@dataclass
class PolicyValueOutput(FusedCausalLMOutput):
    """The policy's output with the values in a declared field: DDP and FSDP see only what the forward pass returns."""

    state_values: torch.Tensor | None = None
    """(B, tokens − 1): the value before each token except the first, aligned with `log_probs`."""


def load(source: str, dtype: torch.dtype) -> PreTrainedModel:
    """Load a value model from a reward model, or from a language model with a random head. Raises ModelError."""
    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            source, num_labels=1, dtype=dtype, trust_remote_code=False
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"value model {source}: cannot be loaded ({one_line(error)})") from None
    if not hasattr(model, "score"):
        raise ModelError(f"value model {source}: {type(model).__name__} has no head named `score`")
    model.config.use_cache = False
    cap_attention(model)
    return model


def attach(policy: PreTrainedModel, value_model: PreTrainedModel, seen: list[torch.Tensor]) -> None:
    """Make the value model part of the policy, so that both share one optimiser, one wrapper and one forward pass.

    Each forward pass that computes the policy's log-probabilities appends its values to `seen`, because TRL reads only
    the fields that it knows. With its adapter disabled the policy is the reference, which has no values.
    """
    adapter = next(iter(lora.layers(policy).values()), None)
    policy.value_model = value_model
    plain = policy.forward

    @functools.wraps(type(policy).forward)  # generate() checks its arguments against this signature
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        out = plain(*args, fused_lm_head=fused_lm_head, **kwargs)
        if not fused_lm_head or (adapter is not None and adapter.disable_adapters):  # sampling, or the reference
            return out
        critic = self.value_model
        body = getattr(critic, critic.base_model_prefix)
        hidden = body(input_ids=kwargs["input_ids"], attention_mask=kwargs["attention_mask"]).last_hidden_state
        values = critic.score(hidden).squeeze(-1).float()[:, :-1]
        seen.append(values)
        return PolicyValueOutput(**out, state_values=values)

    policy.forward = types.MethodType(forward, policy)


def of_policy(weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Return the (name, weight) pairs that a sampling engine knows: all but the value model's."""
    return (pair for pair in weights if not pair[0].startswith(PREFIX))


def split(state: dict[str, Any], inside: bool) -> dict[str, Any]:
    """Return the value model's part of a state dict (`inside`), or the policy's."""
    plain = {name: name.removeprefix(WRAPPED) for name in state}
    if not inside:
        return {name: value for name, value in state.items() if not plain[name].startswith(PREFIX)}
    return {plain[name].removeprefix(PREFIX): state[name] for name in state if plain[name].startswith(PREFIX)}
