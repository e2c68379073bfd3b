"""Keys of a recipe under `rlvr`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from train_plugins.config.plain import UNSET
from train_plugins.verifiers.judge_keys import JudgeKeys

NO_LENGTH = 512
"""TRL's default of max_completion_length."""


@dataclass(frozen=True, slots=True)
class VerifierKeys:
    """Keys under `rlvr.verifier`."""

    reads: Literal["answer", "all"] = "answer"
    """What verifiers read of a response of a model that thinks: the answer after the thought, or all of it. A response
    that ends inside a thought is not verified, which counts as wrong."""


@dataclass(frozen=True, slots=True)
class WatchKeys:
    """Keys under `rlvr.watch`."""

    stop: tuple[Literal["all", "no_end", "no_spread", "unclosed", "repeated"], ...] = ()
    """Alarms of the watch that stop the stage, after a checkpoint; `all`: each of them."""

    def stops(self, kind: str) -> bool:
        """Return whether an alarm stops the stage."""
        return kind in self.stop or "all" in self.stop


READS_ANSWER = VerifierKeys()
ONLY_NAMED = WatchKeys()
ROW = "row"
"""The verifier of a reward that stands for the verifiers which the row itself names."""
DEFAULT_REWARD = "verified"


@dataclass(frozen=True, slots=True)
class RewardKeys:
    """Keys of one reward under `rlvr.rewards`."""

    verifier: str = ROW
    """A verifier's name; `row`: the verifiers that the row names, with its ground truth."""
    weight: float = 1.0
    """Factor of its value, which is 0 to 1, in the score; below 0 for a penalty."""
    truth: Any = None
    """The ground truth of all rows, for a verifier other than the row's."""
    column: str | None = None
    """The row's column that holds the ground truth, instead of `truth`."""
    reads: Literal["answer", "all"] | None = None
    """As `rlvr.verifier.reads`, which is the default; verifiers of form and length read all."""


@dataclass(frozen=True, slots=True)
class RlvrKeys:
    """Keys under `rlvr`."""

    algorithm: Literal["ppo", "grpo", "rloo"] = "ppo"
    """PPO as in the paper, GRPO or RLOO."""
    verifiers: Mapping[str, str] | tuple[str, ...] | None = None
    """A list of the verifiers that rows may name, or a mapping from the names in the rows to verifiers."""
    verifier: VerifierKeys = field(default=READS_ANSWER, metadata=UNSET)
    thinking: str = field(default="auto", metadata=UNSET)
    """The reader of thoughts: auto (found from tokenizer and chat template), none, a reader's name or its YAML file."""
    rewards: Mapping[str, float | RewardKeys] | None = field(default=None, metadata=UNSET)
    """Named rewards whose weighted sum is scored, and which are logged by name; a number is the weight of the verifier
    of that name. None: the row's verifiers alone."""
    judge: JudgeKeys | None = field(default=None, metadata=UNSET)
    """The served model that the verifiers `judge` and `rubric` ask."""
    watch: WatchKeys = field(default=ONLY_NAMED, metadata=UNSET)
    """What becomes of a stage whose rollouts go wrong; it is always named."""
    reward: float = 10.0
    """Factor of a response's verified fraction, or of the weighted sum of its rewards."""
    no_eos_penalty: float | None = -10.0
    """The score of a response without end-of-text, instead of its reward; null: no penalty. The default, for every
    algorithm, is that of the paper's PPO; Tülu 3.1's GRPO uses 0."""
    beta: float = 0.05
    """Coefficient of the KL divergence from the checkpoint that the stage starts from, in the reward of each token
    (ppo) or response (rloo), or in the loss (grpo). The default, for every algorithm, is that of the paper's PPO;
    Tülu 3.1's GRPO uses 0.01."""
    value_model: str | None = None
    """The reward model that the value model starts from (ppo)."""
    fresh_head: bool = False
    """Start the value model from the policy with a random head instead of `value_model` (ppo)."""
    gamma: float = 1.0
    lam: float = 0.95
    """λ of GAE."""
    value_coef: float = 0.1
    value_clip: float = 0.2
    tools: tuple[str, ...] = field(default=(), metadata=UNSET)
    """Functions that the model may call in its rollouts (grpo): `module:function`, or a shipped tool (python)."""
    environment: str | Mapping[str, str] | None = field(default=None, metadata=UNSET)
    """The environment of the rollouts (grpo), `module:Class`, or several by the name in the rows' column
    `environment`."""
    active_sampling: bool = field(default=False, metadata=UNSET)
    """Leave out prompts whose responses all have the same reward, and draw further ones until the rollout is full
    (grpo); OLMo 3, §4.4."""
    active_sampling_limit: float = field(default=10.0, metadata=UNSET)
    """Prompts drawn for one rollout at most, as a multiple of the prompts in it; above it the stage stops."""
    retire_above: float | None = field(default=None, metadata=UNSET)
    """Draw a prompt no more once its responses were verified above this fraction in the mean (with active_sampling);
    0.875 in OLMo 3's scripts."""
    max_prompt_length: int = 2048
    """Length limit in tokens; rows with longer prompts are left out."""
    rollouts: Literal["transformers", "vllm_colocate", "vllm_server"] = "transformers"
    """What samples responses: transformers, vLLM in the trainer's process, or a vLLM server."""
    asynchronous: bool = False
    """Sample while the learner trains, from older weights (grpo with vllm_server, TRL's asynchronous trainer). There is
    no reference model and so no KL term: `beta` must be 0."""
    server: str | None = None
    """URL of the vLLM server (vllm_server); docs/training.md has the command that starts one."""
    workers: int = 2
    """Verifying processes per training process."""
    timeout: float = 10.0
    """Time limit of a verdict, in processor seconds."""

    @property
    def calls_tools(self) -> bool:
        """Whether rollouts may hold calls of tools."""
        return bool(self.tools) or self.environment is not None


def rewards_of(keys: RlvrKeys) -> dict[str, RewardKeys]:
    """Return the recipe's rewards by name."""
    if keys.rewards is None:
        return {DEFAULT_REWARD: RewardKeys()}
    return {
        name: one if isinstance(one, RewardKeys) else RewardKeys(verifier=name, weight=one)
        for name, one in keys.rewards.items()
    }
