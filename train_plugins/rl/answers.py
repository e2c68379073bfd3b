"""What verifiers read of responses: the answer without the thought, or all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import ModelError
from olmes_suite.models.local import thoughts
from olmes_suite.models.local.chat_template import ChatTemplate

if TYPE_CHECKING:
    from olmes_suite.thinking import Parts
    from train_plugins.rl.keys import RlvrKeys
    from train_plugins.verifiers import Call, Verifiers


class Answers:
    """Reads the answers of responses, by the marks that the tokenizer and its chat template use.

    `arguments` are the arguments with which the trainer renders the template.
    """

    def __init__(self, tokenizer: Any, keys: RlvrKeys, arguments: Mapping[str, Any] | None = None) -> None:
        self.tokenizer = tokenizer
        self.reads = keys.verifier.reads
        self.thoughts: thoughts.LocalThoughts | None = thoughts.find(
            tokenizer, _template(tokenizer), thinking=keys.thinking, arguments=arguments or {}
        )
        """None for a model without thoughts."""

    def of(self, call: Call, ids: Sequence[int], reads: str | None = None) -> Call | None:
        """Return the call with what is read of a response of these tokens; None where the thought did not end.

        `reads` replaces the recipe's `verifier.reads`.
        """
        if self.thoughts is None or (reads or self.reads) == "all":
            return call
        parts = self._parts(ids)
        return None if parts.unclosed else replace(call, response=parts.answer)

    def marked(self, text: str, ids: Sequence[int]) -> str:
        """Return the whole response with the marks of its thought, also one that the prompt opened."""
        if self.thoughts is None:
            return text
        _, said = self.thoughts.texts(list(ids), self.tokenizer)
        return (self.thoughts.reader.open if self.thoughts.opened else "") + said

    def answer(self, text: str, ids: Sequence[int]) -> str | None:
        """Return a response without its thought; None where the thought did not end."""
        if self.thoughts is None:
            return text
        parts = self._parts(ids)
        return None if parts.unclosed else parts.answer

    def _parts(self, ids: Sequence[int]) -> Parts:
        assert self.thoughts is not None
        _, text = self.thoughts.texts(list(ids), self.tokenizer)
        return self.thoughts.thoughts.read(text, opened=self.thoughts.opened)


def verify(verifiers: Verifiers, calls: Sequence[Call | None]) -> list[float | None]:
    """Return the verified fractions; 0 without asking a verifier where the thought did not end."""
    fractions = iter(verifiers.verify([call for call in calls if call is not None]))
    return [0.0 if call is None else next(fractions) for call in calls]


def _template(tokenizer: Any) -> ChatTemplate | None:
    try:
        return ChatTemplate(tokenizer) if tokenizer.chat_template else None
    except ModelError:  # the trainer renders it in its own way
        return None
