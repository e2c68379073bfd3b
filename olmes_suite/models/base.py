"""The seam between the runner and an engine."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from olmes_suite.errors import UsageError
from olmes_suite.records import Request, Response

DEFAULT_MAX_TOKENS = 256
"""Tokens of an answer to a request without a limit, as in lm-eval."""


def fit(prompt: int, max_tokens: int, max_length: int) -> tuple[int, int]:
    """(prompt tokens kept, new tokens allowed) within a context of `max_length` tokens.

    The answer gives way first; a prompt that leaves it no room is cut to leave min(max_tokens, max_length // 2).
    """
    if prompt < max_length - 1:
        return prompt, min(max_tokens, max_length - prompt)
    room = max(1, min(max_tokens, max_length // 2))
    return max_length - room, room


class Backend(LM):
    """An lm-eval `LM` that also answers the runner's requests one by one, in any order, as they get ready.

    A backend implements `run`; lm-eval's own methods are made from it, so that every backend also works under
    `lm_eval`'s evaluator.
    """

    chat = True
    """False: the model has no chat template and gets plain text."""
    name = ""
    max_length: int | None = None
    at_once = 32
    """Requests that the engine answers together: how many it should be given at a time, at least."""
    seeded = True
    """A sample is a function of request and seed; False where a server draws samples as it likes."""
    together = False
    """True: the engine is given the requests of all tasks of a run at once."""
    stop_requested = False
    """Set by the runner on Ctrl-C: `run` ends after the batch in hand."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 over all that decides the answers (see `olmes_suite.models.local.fingerprint`)."""

    @abstractmethod
    def run(
        self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]]
    ) -> Iterator[tuple[int, int, Response]]:
        """Yield (position in `requests`, sample index, response) as answers get ready.

        `seeds[i][s]` is the seed of sample `s` of request `i`; None in its place: that sample is on disk already
        and is not asked for again.
        Raises RequestFailed when the engine gives up on a request for good.
        """

    def settings(self) -> dict[str, Any]:
        """What the manifest records about the engine: device, dtype, batch size, versions."""
        return {}

    def notes(self) -> list[str]:
        """Lines for the user about this model: no chat template, double BOS, …"""
        return []

    def alternatives(self, requests: Sequence[Request], top: int) -> Iterator[tuple[int, list[tuple[str, float]]]]:
        """(position, the `top` likeliest first tokens of the answer as (text, natural-log probability)).

        Raises UsageError for an engine that does not tell.
        """
        raise UsageError(f"backend {self.name} gives no log-probabilities of tokens; use hf, or an endpoint")

    def close(self) -> None:
        """Let go of the model's memory: other models are loaded after it. The backend answers nothing afterwards."""

    # lm-eval's interface -------------------------------------------------------------------------------------------

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> Any:
        """Keep the messages; `run` renders them. lm-eval passes the result on untouched."""
        return tuple((message["role"], message["content"]) for message in chat_history)

    @property
    def tokenizer_name(self) -> str:
        """Part of lm-eval's cache keys."""
        return self.name

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """lm-eval's generation call."""
        from olmes_suite.tasks.task import request_of

        asked = [request_of(instance, position) for position, instance in enumerate(requests)]
        texts: list[str] = [""] * len(asked)
        for position, _, response in self.run(asked, [[0]] * len(asked)):
            texts[position] = response.text or ""
        return texts

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """lm-eval's log-likelihood call."""
        from olmes_suite.tasks.task import request_of

        asked = [request_of(instance, position) for position, instance in enumerate(requests)]
        out: list[tuple[float, bool]] = [(0.0, False)] * len(asked)
        for position, _, response in self.run(asked, [[0]] * len(asked)):
            out[position] = (response.loglikelihood or 0.0, bool(response.is_greedy))
        return out

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Not part of any Tülu task."""
        raise NotImplementedError("olmes backends answer generate_until and loglikelihood requests only")
