"""The family `format`, second part: theses, titles, templates and names."""

from __future__ import annotations

import re

from olmes_suite.constraints.registry import constraint
from olmes_suite.constraints.text import (
    listed,
    tokens,
    words,
)


@constraint("format:thesis", profile="reference")
def one_thesis(response: str) -> bool:
    """The first <i>, or else <em>, is closed, not empty, and has text after it; sections are not checked.

    Tags are assumed to have three and four characters, so that an empty <em></em> counts as filled.
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
    """Each section begins with a closed, non-empty <i> or <em> that text follows.

    Headings separate sections; a response without headings is one section.
    """
    sections = [section for section in _HEADING.split(response) if section.strip()]
    matches = [_THESIS.match(section) for section in sections]
    return bool(matches) and all(match is not None and words(match[2]) and words(match[3]) for match in matches)


@constraint("format:title_case", profile="reference", needs=("punkt_tab",))
def title_case_of_long_words(response: str) -> bool:
    """No token of two or more letters is all lower case, or lower case first and upper case from there on.

    "a" and "iPhone" pass.
    """
    return not any(token[0].islower() and (token[1:].islower() or token[1:].isupper()) for token in tokens(response))


_MINOR = frozenset(listed("minor_words"))


@constraint("format:title_case", profile="repaired")
def title_case(response: str) -> bool:
    """Each word except articles, conjunctions and short prepositions begins with a capital; the first always does."""
    lettered = [word for word in words(response) if word[0].isalpha()]
    return bool(lettered) and all(
        not word[0].islower() or (position > 0 and word in _MINOR) for position, word in enumerate(lettered)
    )


_LABELS = ("My Answer:", "My Conclusion:", "Future Outlook:")


@constraint("format:output_template", profile="reference")
def labels_somewhere(response: str) -> bool:
    """The three labels occur, in any order."""
    return all(label in response for label in _LABELS)


@constraint("format:output_template", profile="repaired")
def output_template(response: str) -> bool:
    """The three labels once each, in order, each followed by words, with nothing before the first.

    Bold labels count.
    """
    text = response.replace("*", "")
    pieces = re.split("|".join(map(re.escape, _LABELS)), text)
    in_order = re.findall("|".join(map(re.escape, _LABELS)), text) == list(_LABELS)
    return in_order and not pieces[0].strip() and all(map(words, pieces[1:]))


@constraint("format:no_whitespace")
def no_whitespace(response: str) -> bool:
    """No white space at all. The loose reading drops white space at either end together with a first or last line."""
    return not any(map(str.isspace, response))


@constraint("format:camel_case", profile="reference")
def camel_case_if_any(response: str) -> bool:
    """Python code whose variables are all in camelCase; code without variables passes, such as a single word."""
    names = _variables(response)
    return names is not None and all(map(_is_camel, names))


@constraint("format:camel_case", profile="repaired")
def camel_case(response: str) -> bool:
    """Python code with at least one variable, all in camelCase; a variable named only _ is ignored."""
    names = _variables(response)
    return bool(names) and all(_is_camel(name) for name in names or () if name.strip("_"))


def _is_camel(name: str) -> bool:
    return name[0].islower() and name.isalnum() and re.search(r"[A-Z]{2}", name) is None


def _variables(response: str) -> list[str] | None:
    """Return the names that a program binds by assignments, loops and parameters; None where it is not Python.

    A code fence around the program is allowed.
    """
    import ast

    fenced = re.search(r"```(?:python|py)?[ \t]*\n(.*?)```", response, re.DOTALL | re.IGNORECASE)
    try:
        tree = ast.parse(fenced[1] if fenced else response)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    nodes = list(ast.walk(tree))
    bound = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return bound + [node.arg for node in nodes if isinstance(node, ast.arg) and node.arg not in ("self", "cls")]
