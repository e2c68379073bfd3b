"""Keys of a recipe under `rlvr`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

NO_LENGTH = 512
"""TRL's default of max_completion_length."""


@dataclass(frozen=True, slots=True)
class RlvrKeys:
    """Keys under `rlvr`."""

    algorithm: Literal["ppo", "grpo", "rloo"] = "ppo"
    verifiers: Mapping[str, str] | tuple[str, ...] | None = None
    """A list: the verifiers that rows may name. A mapping: what rows name to the verifier's name."""
    reward: float = 10.0
    """Times the verified fraction of a response."""
    no_eos_penalty: float | None = -10.0
    """The score of a response without end-of-text, in place of its reward; null: none. As in the paper's PPO, whatever
    the algorithm; Tülu 3.1's GRPO has 0."""
    beta: float = 0.05
    """Of the KL divergence from the checkpoint that the stage starts from: in the reward of each token (ppo), of each
    response (rloo), in the loss (grpo). As in the paper's PPO, whatever the algorithm; Tülu 3.1's GRPO has 0.01."""
    value_model: str | None = None
    """ppo: the reward model that the value model starts from."""
    fresh_head: bool = False
    """ppo: instead of `value_model`, start from the policy with a random head."""
    gamma: float = 1.0
    lam: float = 0.95
    """λ of GAE."""
    value_coef: float = 0.1
    value_clip: float = 0.2
    max_prompt_length: int = 2048
    """Tokens; rows with longer prompts are left out."""
    rollouts: Literal["transformers", "vllm_colocate", "vllm_server"] = "transformers"
    asynchronous: bool = False
    """grpo with vllm_server: sample beside the learner, from older weights (TRL's experimental trainer). It has no
    reference model and so no KL term: `beta` must be 0."""
    server: str | None = None
    """URL of the vLLM server, for vllm_server; docs/training.md has the command that starts one."""
    workers: int = 2
    """Processes that verify, of each training process."""
    timeout: float = 10.0
    """Seconds that a verdict may take."""
