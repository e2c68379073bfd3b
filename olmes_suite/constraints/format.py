"""format: how a response is laid out."""

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
    listed,
    ruled_sentences,
    sentences,
    tokens,
    trim,
    words,
)


def _ends_in_emoji(text: str) -> bool:
    """By single characters, as the reference looks: a flag is two, and neither is an emoji. Raises IndexError."""
    import emoji

    return bool(emoji.is_emoji(text[-1]) or emoji.is_emoji(text[-2] if len(text) > 1 else text[-1]))


@constraint("format:emoji", profile="reference", version=2, needs=("emoji",))
def emoji_characters(response: str) -> bool:
    """Each sentence's last or last but one character is an emoji, or else the next sentence's first."""
    import emoji

    found = [bare(sentence).strip() for sentence in ruled_sentences(response)]
    for here, after in zip(found, [*found[1:], None], strict=True):
        if not here:
            return False
        if not _ends_in_emoji(here) and not (after and emoji.is_emoji(after[0])):
            return False
    return True


@constraint("format:emoji", profile="repaired", needs=("punkt_tab", "emoji"))
def emoji_after_each_sentence(response: str) -> bool:
    """An emoji, of however many code points, ends every sentence, before or behind its mark; there is a sentence."""
    import emoji

    sign = "\ue000"  # private use: no letter, and in nobody's answer
    closed: list[bool] = []
    for sentence in sentences(emoji.replace_emoji(response.replace(sign, ""), sign)):
        body = re.sub(r"^[\W_]+", "", sentence)
        before, tail = sentence[: len(sentence) - len(body)], re.sub(r"^.*[^\W_]", "", body, flags=re.DOTALL)
        if closed and sign in before:  # NLTK puts what stands behind a full stop into the next sentence
            closed[-1] = True
        if body:
            closed.append(sign in tail)
    return bool(closed) and all(closed)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _stairs(found: list[str]) -> bool:
    steps = [_indent(line) for line in found]
    return all(one < other for one, other in pairwise(steps))


@constraint("format:line_indent", profile="reference")
def stairs_if_any(response: str) -> bool:
    """Each line is indented more than the one before; one line passes.

    The reference drops blank lines from the list that it walks, so that it skips the line after each.
    """
    return _stairs(_without_blank_lines(response.split("\n")))


def _without_blank_lines(found: list[str]) -> list[str]:
    """The lines that are left by a walk over the list that removes blank ones from it, each by its text.

    A removal takes the first line of that text and makes the walk skip the line after the one that it is at.
    """
    places: dict[str, deque[int]] = {}
    for place, line in enumerate(found):
        if not line.strip():
            places.setdefault(line, deque()).append(place)
    removed, place = set(), 0
    while place < len(found):
        if found[place].strip():
            place += 1
        else:
            removed.add(places[found[place]].popleft())
            place += 2
    return [line for place, line in enumerate(found) if place not in removed]


@constraint("format:line_indent", profile="repaired")
def stairs(response: str) -> bool:
    """Each line is indented more than the one before, at least two hold words; blank ones are skipped, a tab is 8."""
    found = [line.expandtabs() for line in lines(response)]
    return sum(bool(words(line)) for line in found) > 1 and _stairs(found)


@constraint(
    "format:list",
    profile="reference",
    draws={"sep": lambda rng, _: rng.choice(["...", "SEPARATOR", "!?!?", "-"])},
)
def separators(response: str, *, sep: str) -> bool:
    """The separator occurs twice, anywhere."""
    return response.count(sep) >= 2


@constraint("format:list", profile="repaired")
def items_after_separators(response: str, *, sep: str) -> bool:
    """At least two lines begin with the separator and go on, and none with another bullet."""
    found = [line.strip() for line in lines(response)]
    items = [line for line in found if line.startswith(sep) and words(line[len(sep) :])]
    others = [line for line in found if not line.startswith(sep) and re.match(r"[*\-•–]\s", line)]
    return len(items) >= 2 and not others


@constraint("format:newline", profile="reference")
def as_many_lines_as_words(response: str) -> bool:
    """As many non-empty lines as words once punctuation is gone; where they break is not looked at."""
    text = bare(response).strip()
    return sum(line != "" for line in text.split("\n")) == len(text.split())


@constraint("format:newline", profile="repaired")
def one_word_a_line(response: str) -> bool:
    """At least two lines, each with exactly one word."""
    found = [len(line.split()) for line in lines(response) if words(line)]
    return len(found) > 1 and set(found) == {1}


@constraint("format:no_bullets_bullets", profile="reference", version=2)
def sentences_then_bullets_unless_blank(response: str) -> bool:
    """Two sentences, then two lines that start with *, then nothing.

    A blank line among the sentences ends them, and any text after it fails; whether they end in a period is not
    looked at.
    """
    text, bullets, still = 0, 0, True
    for line in (line.strip() for line in response.split("\n")):
        if line.startswith("*"):
            if text < 2:
                return False
            bullets, still = bullets + 1, False
        elif still:
            found = ruled_sentences(line)
            text, still = text + len(found), bool(found)
        else:
            return False
    return bullets >= 2


@constraint("format:no_bullets_bullets", profile="repaired", needs=("punkt_tab",))
def sentences_then_bullets(response: str) -> bool:
    """At least two sentences that end in a period, then at least two lines that start with *; then no more text."""
    found = [line.strip() for line in lines(response)]
    first = next((i for i, line in enumerate(found) if _is_bullet(line, "*")), len(found))
    ended = sum(ending(sentence) == "." for line in found[:first] for sentence in sentences(line))
    return ended >= 2 and len(found) - first >= 2 and all(_is_bullet(line, "*") for line in found[first:])


def _is_bullet(line: str, mark: str) -> bool:
    """The line starts with one mark (not "**", which is bold) and goes on."""
    return line.startswith(mark) and not line.startswith(mark * 2) and bool(words(line))


def _lettered(options: str) -> bool:
    return re.match(r"\W*[aA]\W*[bB]\W*[cC]\W*", options) is not None


@constraint(
    "format:options",
    profile="reference",
    draws={"options": lambda rng, _: rng.choice(["yes/no/maybe", "I know or I don't know", "a), b), c), d)"])},
)
def option_by_first_separator(response: str, *, options: str) -> bool:
    """One of the options and no more. They are cut at "/", else at any "or" ("for" too), else at commas."""
    separator = next((mark for mark in ("/", "or") if mark in options), ",")
    choices = [choice.strip() for choice in options.split(separator)]
    if _lettered(options):
        return response in choices
    return trim(response).lower() in {trim(choice).lower() for choice in choices}


@constraint("format:options", profile="repaired")
def option(response: str, *, options: str) -> bool:
    """One of the options and no more; "or" cuts them as a word. Case, punctuation and space at the ends are free."""
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
    """Five matching brackets are open and one of them is closed; the other four may stay open."""
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
    """Five levels of matching brackets, every one of them closed."""
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
    """No two double quotes side by side and none at the end; no quote at all passes.

    Raises IndexError where nothing but digits and punctuation is there, as the reference does.
    """
    text = "".join(_straight(response).replace("'\"'", "").split())
    return '""' not in text and text.strip("0123456789" + PUNCTUATION.replace('"', ""))[-1] != '"'


@constraint("format:quote_unquote", profile="repaired")
def quotes_explained(response: str) -> bool:
    """At least one quoted phrase, and words outside of quotes after each."""
    pieces = _straight(response).split('"')
    quoted, between = pieces[1::2], pieces[2::2]
    return len(pieces) % 2 == 1 and bool(quoted) and all(map(words, quoted)) and all(map(words, between))


@constraint("format:quotes", profile="reference")
def quotes_with_apostrophes(response: str) -> bool:
    """Double and single quotes nested three deep and closed; an apostrophe opens a quote too."""
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
    """Double and single quotes nested three deep, all three closed, with words in the innermost; no apostrophes."""
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
    """A dash somewhere after every asterisk and before the next; no asterisk at all passes."""
    return all("-" in piece for piece in response.split("*")[1:])


@constraint("format:sub-bullets", profile="repaired")
def sub_bullets(response: str) -> bool:
    """At least one line that starts with *, each followed by a line that starts with - before the next one."""
    found = [line.strip() for line in lines(response)]
    kinds = "".join("*" if _is_bullet(line, "*") else "-" if _is_bullet(line, "-") else " " for line in found)
    return "*" in kinds and all("-" in piece for piece in kinds.split("*")[1:])


@constraint("format:thesis", profile="reference")
def one_thesis(response: str) -> bool:
    """The first <i>, or else <em>, is not empty, is closed, and has text after it; sections are not looked at.

    Tags are measured as three and four characters, so that an empty <em></em> counts as filled.
    """
    start = next((place for tag in ("<i>", "<em>") if (place := response.find(tag)) != -1), -1)
    if start == -1:
        return False
    rest = response[start:]
    end = next((place for tag in ("</i>", "</em>") if (place := rest.find(tag)) != -1), -1)
    return end != -1 and rest[3:end].strip() != "" and rest[end + 4 :].strip() != ""


_HEADING = re.compile(
    r"^[^\S\n]*(?:#{1,6}\s.*|<h[1-6]\b.*?</h[1-6]>|\*\*[^*]+\*\*:?)\s*$", re.MULTILINE | re.IGNORECASE
)
_THESIS = re.compile(r"\s*(?:<p>\s*)?<(i|em)>(.*?)</\1>(.*)", re.DOTALL | re.IGNORECASE)


@constraint("format:thesis", profile="repaired")
def theses(response: str) -> bool:
    """Every section begins with a closed, filled <i> or <em> and goes on; headings part them, without any it is one."""
    sections = [section for section in _HEADING.split(response) if section.strip()]
    found = [_THESIS.match(section) for section in sections]
    return bool(found) and all(match is not None and words(match[2]) and words(match[3]) for match in found)


@constraint("format:title_case", profile="reference", needs=("punkt_tab",))
def title_case_of_long_words(response: str) -> bool:
    """No token of two letters or more begins small and is small, or all large, from there on; "a" and "iPhone" pass."""
    return not any(token[0].islower() and (token[1:].islower() or token[1:].isupper()) for token in tokens(response))


_MINOR = frozenset(listed("minor_words"))


@constraint("format:title_case", profile="repaired")
def title_case(response: str) -> bool:
    """Every word but articles, conjunctions and short prepositions begins with a capital; the first does too."""
    found = [word for word in words(response) if word[0].isalpha()]
    return bool(found) and all(
        not word[0].islower() or (place > 0 and word in _MINOR) for place, word in enumerate(found)
    )


_LABELS = ("My Answer:", "My Conclusion:", "Future Outlook:")


@constraint("format:output_template", profile="reference")
def labels_somewhere(response: str) -> bool:
    """The three labels occur, in whatever order."""
    return all(label in response for label in _LABELS)


@constraint("format:output_template", profile="repaired")
def output_template(response: str) -> bool:
    """The three labels once each, in order, each filled, and nothing before them; bold labels are labels."""
    text = response.replace("*", "")
    pieces = re.split("|".join(map(re.escape, _LABELS)), text)
    in_order = re.findall("|".join(map(re.escape, _LABELS)), text) == list(_LABELS)
    return in_order and not pieces[0].strip() and all(map(words, pieces[1:]))


@constraint("format:no_whitespace")
def no_whitespace(response: str) -> bool:
    """No white space at all; in the loose reading space at the ends goes with a first or last line."""
    return not any(map(str.isspace, response))


@constraint("format:camel_case", profile="reference")
def camel_case_if_any(response: str) -> bool:
    """Python whose variables are in camelCase; a program without variables passes, so one word does."""
    found = _variables(response)
    return found is not None and all(map(_is_camel, found))


@constraint("format:camel_case", profile="repaired")
def camel_case(response: str) -> bool:
    """Python with at least one variable, all of them in camelCase; a lone _ is no name."""
    found = _variables(response)
    return bool(found) and all(_is_camel(name) for name in found or () if name.strip("_"))


def _is_camel(name: str) -> bool:
    return name[0].islower() and name.isalnum() and re.search(r"[A-Z]{2}", name) is None


def _variables(response: str) -> list[str] | None:
    """Names that a program binds: assignments, loops, parameters; None for what is no Python. A fence may stand."""
    import ast

    fenced = re.search(r"```(?:python|py)?[ \t]*\n(.*?)```", response, re.DOTALL | re.IGNORECASE)
    try:
        tree = ast.parse(fenced[1] if fenced else response)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    bound = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return bound + [
        node.arg for node in ast.walk(tree) if isinstance(node, ast.arg) and node.arg not in ("self", "cls")
    ]
