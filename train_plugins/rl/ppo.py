"""PPO as in the Tülu 3 paper (§6, Table 21), on TRL's GRPO trainer: a value model, GAE, the KL in the reward."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load_file
from trl import GRPOConfig, GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing

from train_plugins import distributed
from train_plugins.rl import advantages, value_model
from train_plugins.rl.rollouts import Rollouts
from train_plugins.trainers import dropout


@dataclass
class PpoConfig(GRPOConfig):
    """GRPOConfig that allows one response per prompt: PPO compares it with its value, not with other responses."""

    num_generations: int = field(default=1, metadata={"help": "Responses per prompt."})
    num_iterations: int = field(default=4, metadata={"help": "Optimiser passes over each rollout (K)."})

    def __post_init__(self) -> None:
        group, steps = self.num_generations, self.steps_per_generation or self.gradient_accumulation_steps
        batch = self.generation_batch_size or self.per_device_train_batch_size * distributed.world_size() * steps
        self.num_generations = max(2, batch)  # the base class insists on two or more that divide the batch
        super().__post_init__()
        self.num_generations = group


class Ppo(Rollouts, GRPOTrainer):
    """PPO on verified rewards. `value_source`: the checkpoint that the value model is loaded from."""

    _name = "PPO"

    def __init__(self, *args: Any, value_source: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[torch.Tensor] = []
        self.beta: float
        critic = value_model.load(value_source, self.model.dtype)
        if self.args.disable_dropout:
            dropout.switch_off(critic)
        policy = self.model.get_base_model() if self.adapted else self.model
        value_model.attach(policy, critic.to(self.model.device), self.seen)
        if self.use_vllm:  # vLLM has no place for the value model's weights
            all_weights = self.vllm_generation._iter_named_params
            self.vllm_generation._iter_named_params = lambda: value_model.of_policy(all_weights())

    # Rollouts

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Add `old_values`, `returns`, `advantages` and `counted`, the mask of trained tokens, each (B, T)."""
        self.seen.clear()
        out = super()._generate_and_score_completions(inputs)  # its pass for the old log-probabilities leaves values
        mask, width = out["completion_mask"].float(), out["completion_ids"].size(1)
        if "old_per_token_logps" not in out:
            out["old_per_token_logps"] = self._sampled_logps(out)
            self._note_kl(out, out["old_per_token_logps"])
        values = torch.cat([part[:, -width:] for part in self.seen]) * mask
        self.seen.clear()
        counted = mask * ~self.scores.isnan()[:, None]  # a skipped row teaches nothing
        rewards = advantages.token_rewards(
            self.scores.nan_to_num(), out["old_per_token_logps"], out.get("ref_per_token_logps"), counted, self.beta
        )
        raw, out["returns"] = advantages.gae(rewards, values, counted, self.keys.gamma, self.keys.lam)
        out["advantages"] = advantages.whiten(raw, counted, self._total)
        out["old_values"], out["counted"] = values, counted
        out["num_items_in_batch"] = self._total(counted.sum())
        return out

    def _sampled_logps(self, out: Mapping[str, Any]) -> torch.Tensor:
        """Compute the old log-probabilities when TRL does not (K = 1)."""
        ids, seen = (torch.cat([out[f"prompt_{k}"], out[f"completion_{k}"]], dim=1) for k in ("ids", "mask"))
        size = self.args.per_device_train_batch_size
        with disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            return self._get_per_token_logps_and_entropies(
                self.model, ids, seen, out["completion_ids"].size(1), batch_size=size
            )[0]

    def _total(self, value: torch.Tensor) -> torch.Tensor:
        return self.accelerator.reduce(value, "sum")

    # Loss

    def _compute_loss(self, model: torch.nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Add the clipped value loss, over the same number of tokens, to TRL's clipped surrogate."""
        self.seen.clear()
        beta, self.beta = self.beta, 0.0  # the KL is in the reward already
        try:
            loss = super()._compute_loss(model, inputs)
        finally:
            self.beta = beta
        counted, width = inputs["counted"], inputs["completion_ids"].size(1)
        values = self.seen.pop()[:, -width:]
        errors = advantages.value_errors(values, inputs["old_values"], inputs["returns"], counted, self.keys.value_clip)
        tokens = inputs["num_items_in_batch"].clamp(min=1) / self.accelerator.num_processes
        if self.model.training:  # the share of one accumulation window, as TRL's loss_type "dapo"
            tokens = tokens * self.current_gradient_accumulation_steps / self.args.steps_per_generation
        value_loss = errors.sum() / tokens
        passes = self.current_gradient_accumulation_steps if self.model.training else 1
        self._note("loss/value", self.accelerator.gather(value_loss.detach()).mean() * passes)  # logged as a mean
        return loss + self.keys.value_coef * value_loss

    def _clip_grad_norm(self, model: torch.nn.Module) -> float:
        """Clip policy and value model separately, and return the norm of both together.

        A large gradient of the value model must not shrink the policy's step.
        """
        critic = self.accelerator.unwrap_model(model).value_model
        inside = {id(parameter) for parameter in critic.parameters()}
        parts = [p for p in model.parameters() if id(p) not in inside], list(critic.parameters())
        norms = [float(self.accelerator.clip_grad_norm_(part, self.args.max_grad_norm)) for part in parts]
        return math.hypot(*norms)

    # Checkpoints: the policy as a plain language model, the value model in a folder beside it

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = output_dir or self.args.output_dir
        model = self.accelerator.unwrap_model(self.model)
        state = model.state_dict() if state_dict is None else state_dict
        super()._save(folder, state_dict=value_model.split(state, inside=False))
        if self.args.should_save:
            model.value_model.save_pretrained(
                os.path.join(folder, value_model.FOLDER), state_dict=value_model.split(state, inside=True)
            )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if not self.is_fsdp_enabled:  # an FSDP state dict holds both already
            file = os.path.join(resume_from_checkpoint, value_model.FOLDER, "model.safetensors")
            whole = self.accelerator.unwrap_model(self.model if model is None else model)
            whole.value_model.load_state_dict(load_file(file), strict=True)
