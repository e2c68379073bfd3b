"""Which part of a rendered conversation is trained: the assistant's turns, proved row by row.

A turn is trained behind the prompt that inference gives: the same turns before it, rendered with the generation
prompt. Two tests prove it. Prefix test: that prompt is how the row's text begins. Text test: what follows is what the
turn says, up to the token that ends it. Pure functions of a template and a row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from train_plugins.data.fields import Conversation
from train_plugins.data.rendering import CURE, Renderer, left_out, neutral, unsaid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Reasoning = Literal["per_turn", "keep", "last"]
"""What becomes of the reasoning of earlier turns: see `sft.reasoning`."""
REFIT = "leave such turns out of the data, or name another template in `chat_template`"
_EMPTY_THOUGHT = re.compile(r"\s*<think>\s*</think>")


@dataclass(frozen=True, slots=True)
class Span:
    """A trained turn: its position in the conversation, and where its text begins and ends."""

    turn: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Part:
    """A rendered text that is one row of training, with its trained parts in order."""

    text: str
    spans: tuple[Span, ...]
    last: int
    """Position of the last turn in the text."""
    empty_thoughts: int = 0
    """Trained turns that begin with an empty thought, which the template wrote."""

    @property
    def turns(self) -> int:
        """The number of trained turns."""
        return len({span.turn for span in self.spans})


class Unproved(ValueError):
    """A turn whose trained text cannot be told from the rendered text."""


def parts(
    tokenizer: PreTrainedTokenizerBase, conversation: Conversation, reasoning: Reasoning | None, ends: Sequence[str],
    template: str | None = None,
) -> list[Part]:  # fmt: skip
    """Return the rows of training that a conversation becomes; `ends` are the tokens that end a turn.

    None: the whole conversation is one row if every turn of it passes both tests, otherwise one row per assistant
    turn. Raises ValueError with what the template leaves out, or where a test fails.
    """
    given = neutral(conversation, tokenizer)
    render = Renderer(tokenizer, given.tools, given.kwargs, template)
    trained = [
        place
        for place, turn in enumerate(given.messages)
        if turn["role"] == "assistant" and place not in given.untrained
    ]
    if reasoning == "last":
        trained = trained[-1:]
    if reasoning in (None, "keep") and len(trained) > 0:
        try:
            return [_whole(render, given, trained, ends, strict=reasoning == "keep")]
        except Unproved:
            if reasoning == "keep":
                raise
    return [_single(render, given, place, ends) for place in trained]


def _single(render: Renderer, given: Conversation, place: int, ends: Sequence[str]) -> Part:
    """Return the row that trains one turn behind its prompt."""
    cut = replace(given, messages=given.messages[: place + 1])
    try:
        return _whole(render, cut, [place], ends, strict=True)
    except Unproved:
        if (found := rejoined(render, cut)) is None:
            raise
    prompt, said = found
    if (
        missing := left_out(cut, prompt, place)
        or render.ignored(cut.messages[:-1], render.text(cut.messages[:-1]))
        or unsaid(given.messages[place], said)
    ):
        raise ValueError(f"it leaves out {missing}; {CURE}")
    return Part(prompt + said, (Span(place, len(prompt), _end(prompt + said, len(prompt), ends)),), place)


def rejoined(render: Renderer, given: Conversation) -> tuple[str, str] | None:
    """Return the prompt of the last turn and what the template writes for the turn, where the two cannot be rendered
    together because the turn makes the template leave out a part of its own prompt; None if they cannot be told.

    GPT-OSS renders the reasoning before a tool call until an answer follows. What it writes for the turn is the same
    directly after the question, and must be the end of the whole.
    """
    *before, turn = given.messages
    asked = max((place for place, one in enumerate(before) if one["role"] == "user"), default=-1) + 1
    if asked in (0, len(before)):
        return None
    prompt, opening = render.text(before, prompt=True), render.text(before[:asked], prompt=True)
    short, whole = render.text([*before[:asked], turn]), render.text(given.messages)
    said, header = short.removeprefix(opening), prompt.removeprefix(render.text(before))
    if not (short.startswith(opening) and said and header != prompt and whole.endswith(header + said)):
        return None
    return prompt, said


def _whole(render: Renderer, given: Conversation, trained: Sequence[int], ends: Sequence[str], *, strict: bool) -> Part:
    """Return a conversation as one row. Raises Unproved where a turn in it is not what inference gives.

    `strict`: a turn of which the template leaves something out is an error of its own, not only of this row.
    """
    turns = given.messages
    if render.marked:
        text, marks = render.marks(turns)
    else:
        text, marks = render.text(turns), []
    missing = left_out(given, text, len(turns) - 1) or render.ignored(turns, text)
    if missing:
        raise (ValueError if missing != "assistant turns" or strict else Unproved)(f"it leaves out {missing}; {CURE}")
    spans: list[Span] = []
    empty = 0
    for place in trained:
        found = _turn(render, turns, place, text, marks, ends)
        said = text[found[0].start : found[-1].end]
        if missing := unsaid(turns[place], said):
            raise (ValueError if strict else Unproved)(f"it leaves out {missing}; {CURE}")
        thought = turns[place].get("reasoning_content") or "<think>" in turns[place]["content"]
        empty += bool(_EMPTY_THOUGHT.match(said)) and not thought
        spans += found
    return Part(text, tuple(spans), len(turns) - 1, empty)


def _turn(
    render: Renderer, turns: Sequence[dict[str, object]], place: int, text: str, marks: Sequence[tuple[int, int]],
    ends: Sequence[str],
) -> list[Span]:  # fmt: skip
    """Return the trained parts of one turn in a text. Raises Unproved unless it passes both tests."""
    prompt = render.text(turns[:place], prompt=True)
    last = place == len(turns) - 1
    alone = text if last else render.text(turns[: place + 1])
    if not alone.startswith(prompt):
        shared = _common(alone, prompt)
        raise Unproved(
            f"turn {place + 1} does not begin with the generation prompt: there is {alone[shared : shared + 20]!r} "
            f"where the prompt has {prompt[shared : shared + 20]!r}; "
            + ("set enable_thinking in `chat_template_kwargs`" if "enable_thinking" in render.template else REFIT)
        )
    end = _end(alone, len(prompt), ends)
    if not (text.startswith(prompt) and text.startswith(alone[len(prompt) : end], len(prompt))):
        raise Unproved(f"turn {place + 1} reads differently once others follow it")
    if not render.marked:
        return [Span(place, len(prompt), end)]
    before = _common(render.text(turns[:place]), text)
    inside = [Span(place, start, stop) for start, stop in marks if before <= start < max(end, len(prompt) + 1)]
    if not inside:
        raise Unproved(f"the template's {{% generation %}} marks do not enclose turn {place + 1}")
    return inside


def _end(text: str, start: int, ends: Sequence[str]) -> int:
    """Return where a turn ends: after the token that ends it if only white space follows, else with the text."""
    bare = text.rstrip()
    return len(bare) if len(bare) > start and any(bare.endswith(one) for one in ends if one.strip()) else len(text)


def _common(first: str, second: str) -> int:
    """Return the number of characters with which both texts begin."""
    if second.startswith(first):
        return len(first)
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about how a chat template renders conversations, found by rendering probes."""

    marked: bool
    """It has generation markers."""
    whole: bool
    """Its rendering of plain conversations of several turns passes the tests, so rows of role and content need none."""
    drops: bool
    """It leaves out the reasoning of earlier turns."""
    reasons: bool
    """It renders a turn's reasoning."""


_TURNS = (
    {"role": "user", "content": "Say seven."}, {"role": "assistant", "content": "seven"},
    {"role": "user", "content": "Say eight."}, {"role": "assistant", "content": "eight"},
)  # fmt: skip


def facts(tokenizer: PreTrainedTokenizerBase, ends: Sequence[str]) -> Facts:
    """Render probes to find what the tokenizer's chat template does. A template that fails is left to the rows."""
    render = Renderer(tokenizer)
    drops, reasons = history(render)
    try:
        whole = len(parts(tokenizer, Conversation([dict(turn) for turn in _TURNS]), None, ends)) == 1
    except Exception:  # a template may raise anything
        whole = render.marked
    return Facts(render.marked, whole, drops, reasons)


def history(render: Renderer) -> tuple[bool, bool]:
    """Return whether the template leaves out the reasoning of earlier turns, and whether it renders reasoning.

    Reasoning may be a field of the turn, or stand in its content between `<think>` and `</think>`.
    """
    drops = reasons = False
    for inline in (False, True):
        turns = [dict(turn) for turn in _TURNS]
        for place, thought in ((1, "Hm, a seven."), (3, "Hm, an eight.")):
            if inline:
                turns[place]["content"] = f"<think>\n{thought}\n</think>\n\n{turns[place]['content']}"
            else:
                turns[place]["reasoning_content"] = thought
        try:
            text = render.text(turns)
        except Exception:  # a template may raise anything
            continue
        said = "Hm, an eight." in text
        reasons = reasons or (said and not inline)
        drops = drops or (said and "Hm, a seven." not in text)
    return drops, reasons
