"""The family `format`: how a response is laid out; `format_of_text` has the second part."""

from __future__ import annotations

import re
from collections import deque
from itertools import pairwise

from olmes_suite.constraints.registry import constraint
from olmes_suite.constraints.text import (
    PUNCTUATION,
    bare,
    ending,
    lines,
    ruled_sentences,
    sentences,
    trim,
    words,
)


def _ends_in_emoji(text: str) -> bool:
    """Return whether the last or last but one character is an emoji, as the reference checks.

    A flag is two characters, and neither is an emoji. Raises IndexError for an empty text.
    """
    import emoji

    return bool(emoji.is_emoji(text[-1]) or emoji.is_emoji(text[-2] if len(text) > 1 else text[-1]))


@constraint("format:emoji", profile="reference", version=2, needs=("emoji",))
def emoji_characters(response: str) -> bool:
    """An emoji is the last or last but one character of each sentence, or the first of the next sentence."""
    import emoji

    bodies = [bare(sentence).strip() for sentence in ruled_sentences(response)]
    for current, following in zip(bodies, [*bodies[1:], None], strict=False):
        if not current:
            return False
        if not _ends_in_emoji(current) and not (following and emoji.is_emoji(following[0])):
            return False
    return True


@constraint("format:emoji", profile="repaired", needs=("punkt_tab", "emoji"))
def emoji_after_each_sentence(response: str) -> bool:
    """An emoji of any number of code points ends each sentence, before or after its final mark.

    There is at least one sentence.
    """
    import emoji

    sign = "\ue000"  # a private-use character: not a letter, and not in any response
    closed: list[bool] = []
    for sentence in sentences(emoji.replace_emoji(response.replace(sign, ""), sign)):
        body = re.sub(r"^[\W_]+", "", sentence)
        before, tail = sentence[: len(sentence) - len(body)], re.sub(r"^.*[^\W_]", "", body, flags=re.DOTALL)
        if closed and sign in before:  # NLTK moves what follows a full stop into the next sentence
            closed[-1] = True
        if body:
            closed.append(sign in tail)
    return bool(closed) and all(closed)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _stairs(rows: list[str]) -> bool:
    indents = [_indent(row) for row in rows]
    return all(one < other for one, other in pairwise(indents))


@constraint("format:line_indent", profile="reference")
def stairs_if_any(response: str) -> bool:
    """Each line is indented more than the line before; one line passes.

    The reference removes blank lines from the list while iterating over it, which skips the line after each.
    """
    return _stairs(_without_blank_lines(response.split("\n")))


def _without_blank_lines(rows: list[str]) -> list[str]:
    """The lines that are left by a walk over the list that removes blank ones from it, each by its text.

    A removal takes the first line of that text and makes the walk skip the line after the one that it is at.
    """
    places: dict[str, deque[int]] = {}
    for place, line in enumerate(rows):
        if not line.strip():
            places.setdefault(line, deque()).append(place)
    removed, place = set(), 0
    while place < len(rows):
        if rows[place].strip():
            place += 1
        else:
            removed.add(places[rows[place]].popleft())
            place += 2
    return [line for place, line in enumerate(rows) if place not in removed]


@constraint("format:line_indent", profile="repaired")
def stairs(response: str) -> bool:
    """Each line is indented more than the line before, and at least two have words.

    Blank lines are skipped; a tab is eight spaces.
    """
    rows = [line.expandtabs() for line in lines(response)]
    return sum(bool(words(line)) for line in rows) > 1 and _stairs(rows)


@constraint(
    "format:list",
    profile="reference",
    draws={"sep": lambda rng, _: rng.choice(["...", "SEPARATOR", "!?!?", "-"])},
)
def separators(response: str, *, sep: str) -> bool:
    """The separator occurs at least twice, anywhere."""
    return response.count(sep) >= 2


@constraint("format:list", profile="repaired")
def items_after_separators(response: str, *, sep: str) -> bool:
    """At least two lines have words after the separator that begins them, and none begins with another bullet."""
    rows = [line.strip() for line in lines(response)]
    items = [line for line in rows if line.startswith(sep) and words(line[len(sep) :])]
    others = [line for line in rows if not line.startswith(sep) and re.match(r"[*\-•–]\s", line)]
    return len(items) >= 2 and not others


@constraint("format:newline", profile="reference")
def as_many_lines_as_words(response: str) -> bool:
    """As many non-empty lines as words after punctuation is removed; where the lines break is not checked."""
    text = bare(response).strip()
    return sum(line != "" for line in text.split("\n")) == len(text.split())


@constraint("format:newline", profile="repaired")
def one_word_a_line(response: str) -> bool:
    """At least two lines, each with exactly one word."""
    lengths = [len(line.split()) for line in lines(response) if words(line)]
    return len(lengths) > 1 and set(lengths) == {1}


@constraint("format:no_bullets_bullets", profile="reference", version=2)
def sentences_then_bullets_unless_blank(response: str) -> bool:
    """Two sentences, then two lines that start with *, then nothing.

    A blank line ends the sentences, and any text after it except bullets fails. Whether a sentence ends in a period is
    not checked.
    """
    sentence_count, bullet_count, in_sentences = 0, 0, True
    for line in (line.strip() for line in response.split("\n")):
        if line.startswith("*"):
            if sentence_count < 2:
                return False
            bullet_count, in_sentences = bullet_count + 1, False
        elif in_sentences:
            parts = ruled_sentences(line)
            sentence_count, in_sentences = sentence_count + len(parts), bool(parts)
        else:
            return False
    return bullet_count >= 2


@constraint("format:no_bullets_bullets", profile="repaired", needs=("punkt_tab",))
def sentences_then_bullets(response: str) -> bool:
    """At least two sentences that end in a period, then at least two lines that start with *, then no more text."""
    rows = [line.strip() for line in lines(response)]
    first = next((i for i, line in enumerate(rows) if _is_bullet(line, "*")), len(rows))
    periods = sum(ending(sentence) == "." for line in rows[:first] for sentence in sentences(line))
    return periods >= 2 and len(rows) - first >= 2 and all(_is_bullet(line, "*") for line in rows[first:])


def _is_bullet(line: str, mark: str) -> bool:
    """Return whether the line starts with one mark (not "**", which is bold) and has words."""
    return line.startswith(mark) and not line.startswith(mark * 2) and bool(words(line))


def _lettered(options: str) -> bool:
    return re.match(r"\W*[aA]\W*[bB]\W*[cC]\W*", options) is not None


@constraint(
    "format:options",
    profile="reference",
    draws={"options": lambda rng, _: rng.choice(["yes/no/maybe", "I know or I don't know", "a), b), c), d)"])},
)
def option_by_first_separator(response: str, *, options: str) -> bool:
    """One of the options alone. Options are split at "/", else at any "or" (also in "for"), else at commas."""
    separator = next((mark for mark in ("/", "or") if mark in options), ",")
    choices = [choice.strip() for choice in options.split(separator)]
    if _lettered(options):
        return response in choices
    return trim(response).lower() in {trim(choice).lower() for choice in choices}


@constraint("format:options", profile="repaired")
def option(response: str, *, options: str) -> bool:
    """One of the options alone; "or" separates options only as a word.

    Case, punctuation and white space at both ends are ignored.
    """
    choices = [choice.strip() for choice in re.split(r"/|\s+or\s+" if not _lettered(options) else ",", options)]
    if len(choices) == 1:
        choices = [choice.strip() for choice in options.split(",")]
    if _lettered(options):
        return response.strip() in choices
    return _core(response) in {_core(choice) for choice in choices} - {""}


def _core(text: str) -> str:
    return text.replace("’", "'").strip(PUNCTUATION + " \n\t").lower()


_CLOSING = {")": "(", "]": "[", "}": "{"}


@constraint("format:parentheses", profile="reference")
def fifth_bracket_closed(response: str) -> bool:
    """Five matching brackets are open and one is closed; the other four may stay open."""
    open_, deepest = [], 0
    for character in response:
        if character in "([{":
            open_.append(character)
            deepest = max(deepest, len(open_))
        elif character in _CLOSING:
            if open_ and open_[-1] == _CLOSING[character]:
                open_.pop()
                if deepest >= 5:
                    return True
            else:
                open_, deepest = [], 0
    return False


@constraint("format:parentheses", profile="repaired")
def five_brackets_closed(response: str) -> bool:
    """Five levels of matching brackets, all closed."""
    stack: list[tuple[str, int]] = []
    for character in response:
        if character in "([{":
            stack.append((character, 0))
        elif character in _CLOSING:
            if not stack or stack[-1][0] != _CLOSING[character]:
                stack = []
                continue
            depth = stack.pop()[1] + 1
            if depth >= 5:
                return True
            if stack:
                stack[-1] = (stack[-1][0], max(stack[-1][1], depth))
    return False


def _straight(text: str) -> str:
    return text.replace("“", '"').replace("”", '"')


@constraint("format:quote_unquote", profile="reference")
def no_quotes_side_by_side(response: str) -> bool:
    """No two double quotes side by side and none at the end; a response without quotes passes.

    Raises IndexError for a response of digits and punctuation alone, as the reference does.
    """
    text = "".join(_straight(response).replace("'\"'", "").split())
    return '""' not in text and text.strip("0123456789" + PUNCTUATION.replace('"', ""))[-1] != '"'


@constraint("format:quote_unquote", profile="repaired")
def quotes_explained(response: str) -> bool:
    """At least one quoted phrase, and words outside quotes after each."""
    pieces = _straight(response).split('"')
    quoted, between = pieces[1::2], pieces[2::2]
    return len(pieces) % 2 == 1 and bool(quoted) and all(map(words, quoted)) and all(map(words, between))


@constraint("format:quotes", profile="reference")
def quotes_with_apostrophes(response: str) -> bool:
    """Double and single quotes nested three deep and closed; an apostrophe also opens a quote."""
    stack: list[str] = []
    deepest = 0
    for character in response:
        if stack and character == stack[-1]:
            stack.pop()
            if deepest - len(stack) >= 3:
                return True
        elif character in "\"'":
            stack.append(character)
            deepest = max(deepest, len(stack))
    return False


@constraint("format:quotes", profile="repaired")
def quotes_nested(response: str) -> bool:
    """Double and single quotes nested three deep, all three closed, with words in the innermost.

    Apostrophes are ignored.
    """
    text = re.sub(r"(?<=\w)['’](?=\w)", "", _straight(response).replace("‘", "'").replace("’", "'"))
    stack: list[tuple[str, int, int]] = []
    last_letter = -1
    for place, character in enumerate(text):
        if character.isalnum():
            last_letter = place
        if stack and character == stack[-1][0]:
            _, start, inner = stack.pop()
            depth = inner + 1 if last_letter > start else 0
            if depth >= 3:
                return True
            if stack:
                mark, start, known = stack[-1]
                stack[-1] = (mark, start, max(known, depth))
        elif character in "\"'":
            stack.append((character, place, 0))
    return False


@constraint("format:sub-bullets", profile="reference")
def dashes_after_asterisks(response: str) -> bool:
    """A dash somewhere between each asterisk and the next; a response without asterisks passes."""
    return all("-" in piece for piece in response.split("*")[1:])


@constraint("format:sub-bullets", profile="repaired")
def sub_bullets(response: str) -> bool:
    """At least one line that starts with *, each followed by a line that starts with - before the next *."""
    rows = [line.strip() for line in lines(response)]
    kinds = "".join("*" if _is_bullet(line, "*") else "-" if _is_bullet(line, "-") else " " for line in rows)
    return "*" in kinds and all("-" in piece for piece in kinds.split("*")[1:])
