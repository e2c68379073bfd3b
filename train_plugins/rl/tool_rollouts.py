"""Rollouts with tools and environments: TRL runs them, this counts calls and failures, and reads the last turn."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from olmes_suite.errors import StageRefused
from train_plugins.checkpoints import lineage
from train_plugins.rl import environments
from train_plugins.rl.environments import EnvironmentFailed, Factory
from train_plugins.rl.tools import Calls, Tool

if TYPE_CHECKING:
    from transformers.trainer_utils import TrainOutput

IN_VAIN = 8
"""Number of consecutive rollouts in which every call failed, after which a line says so."""


class ToolRollouts:
    """Mixin for GRPO, placed before `Rollouts`.

    The verifier reads the last turn of a response, after all calls. Tokens of results have mask 0 in the loss.
    """

    def __init__(
        self, *args: Any, tools: Sequence[Tool] = (), factories: Mapping[str | None, Factory] | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        self.calls = Calls()
        self.last_turns: list[int] | None = None
        """Number of tokens of the last turn of each response; None without tools."""
        self.in_vain = 0
        """Number of rollouts, up to the last one, in which every call failed."""
        made = {name: environments.guarded(factory, self.calls) for name, factory in (factories or {}).items()}
        if tools:
            kwargs["tools"] = [self.calls.counted(tool) for tool in tools]
        if made:
            kwargs["environment_factory"] = made.get(None, made)
        super().__init__(*args, **kwargs)
        self.rewarded = self._take_environment_rewards()
        if tools or made:
            tokenizer = self._tokenizer  # type: ignore[attr-defined]
            self.calls.control = tuple(token for token in tokenizer.all_special_tokens if len(token) > 1)

    def _take_environment_rewards(self) -> list[tuple[str, Any]]:
        """Take TRL's reward functions of environments out of its list; `_environment_rewards` adds them to the score.

        TRL would add them after the checks for scores without a signal.
        """
        trainer: Any = self
        names, functions = trainer.reward_func_names, trainer.reward_funcs
        own = sum(1 for function in functions if getattr(function, "__name__", "") != "get_reward")
        taken = list(zip(names[own:], functions[own:], strict=True))
        for name in ("reward_funcs", "reward_func_names", "reward_processing_classes", "reward_weights"):
            setattr(trainer, name, getattr(trainer, name)[:own])
        return taken

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, and say at the end how many calls failed."""
        done: TrainOutput = super().train(*args, **kwargs)  # type: ignore[misc]
        if self.tools and self.is_world_process_zero():  # type: ignore[attr-defined]
            print(self.calls.summary(), file=sys.stderr)
        return done

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Sample with tools. Raises StageRefused, which names the last checkpoint, if an environment is broken."""
        try:
            out: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        except EnvironmentFailed as error:
            raise self._stopped(str(error)) from error
        return out

    def _stopped(self, why: str) -> StageRefused:
        output = Path(self.args.output_dir)  # type: ignore[attr-defined]
        return StageRefused(f"{why}; {lineage.last_good(output)}; mend it and continue with --resume")

    def _tool_call_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Run TRL's loop of calls, then note the calls and where the last turns begin."""
        before = self.calls.calls.copy(), self.calls.failures.copy()
        out = super()._tool_call_loop(*args, **kwargs)  # type: ignore[misc]
        masks, completions, _, _, count, failed, _ = out
        if self.calls.broken:
            raise self._stopped(f"the environment is broken: {self.calls.broken}")
        self.last_turns = [last_turn(mask) for mask in masks]
        self._note_calls((count, failed), *before, unanswered=sum(is_unanswered(turns) for turns in completions))
        return out

    def _note_calls(self, total: tuple[int, int], calls: Any, failures: Any, unanswered: int) -> None:
        """Log this rollout's calls and failures over all processes, also by tool."""
        names = sorted({tool.__name__ for tool in self.tools})  # type: ignore[attr-defined]
        own = [(self.calls.calls[name] - calls[name], self.calls.failures[name] - failures[name]) for name in names]
        counts = [*total, unanswered, len(self.last_turns or ()), *(number for pair in own for number in pair)]
        here = torch.tensor(counts, dtype=torch.float, device=self.accelerator.device)  # type: ignore[attr-defined]
        everywhere = self.accelerator.reduce(here, "sum").tolist()  # type: ignore[attr-defined]
        called, failed, left, responses, *by_tool = everywhere
        self._note("rlvr/tools/calls", called / max(responses, 1))  # type: ignore[attr-defined]
        self._note("rlvr/tools/failed", failed / max(called, 1))  # type: ignore[attr-defined]
        self._note("rlvr/tools/unanswered", left / max(responses, 1))  # type: ignore[attr-defined]
        for name, times, lost in zip(names, by_tool[::2], by_tool[1::2], strict=True):
            if times:
                self._note(f"rlvr/tools/failed/{name}", lost / times)  # type: ignore[attr-defined]
        self.in_vain = self.in_vain + 1 if called and failed == called else 0
        if self.in_vain == IN_VAIN and self.is_world_process_zero():  # type: ignore[attr-defined]
            last = next(reversed(self.calls.last.values()), "a tool of that name does not exist")
            print(
                f"warning: every call of a tool failed in {IN_VAIN} rollouts in a row; the last: {last}",
                file=sys.stderr,
            )

    def _calculate_rewards(
        self, inputs: Sequence[Mapping[str, Any]], prompts: Any, completions: Sequence[Any],
        completion_ids_list: Sequence[Sequence[int]],
    ) -> torch.Tensor:  # fmt: skip
        """Verify the last turns: the text after all calls, or a call that got no answer."""
        if self.last_turns is not None:
            lengths, self.last_turns = self.last_turns, None
            whole = zip(completion_ids_list, lengths, strict=True)
            completion_ids_list = [list(ids[len(ids) - length :]) for ids, length in whole]
            tokenizer = self._tokenizer  # type: ignore[attr-defined]
            completions = tokenizer.batch_decode(completion_ids_list, skip_special_tokens=True)
        scores: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)  # type: ignore[misc]
        return scores

    def _environment_rewards(self) -> list[float | None]:
        """Return what the environments give each response of this process, None where one gives nothing."""
        rewards: list[float | None] = [None] * len(self.environments or ())  # type: ignore[attr-defined]
        for name, function in self.rewarded:
            given = function(environments=self.environments)  # type: ignore[attr-defined]
            if inspect.isawaitable(given):
                loop = self.async_loop  # type: ignore[attr-defined]
                given = asyncio.run_coroutine_threadsafe(_awaited(given), loop).result()
            known = torch.tensor([value for value in given if value is not None] or [float("nan")])
            self._note(f"rlvr/environment/{name}", known.mean())  # type: ignore[attr-defined]
            rewards = [old if new is None else new for old, new in zip(rewards, given, strict=True)]
        return rewards


async def _awaited(given: Any) -> Any:
    return await given


def last_turn(mask: Sequence[int]) -> int:
    """Return the number of tokens of the last turn of a response: its ones at the end."""
    length = 0
    for value in reversed(mask):
        if not value:
            break
        length += 1
    return length


def is_unanswered(turns: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a response ends in a call without an answer, at a limit of turns or tokens."""
    return bool(turns) and (turns[-1]["role"] == "tool" or bool(turns[-1].get("tool_calls")))
