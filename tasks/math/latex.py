r"""Reading answers in LaTeX as SymPy's `parse_latex` reads them, in a fraction of its time.

`parse_latex` reads the longest beginning that is one expression and ignores the rest, so that `x, since …` is x. It is
slow on prose, and an answer without a box is prose. Here the same is read faster:

* `parse_latex` never looks behind the first character that ends every expression, so the text is cut there.
* Its parser predicts with the full context (LL), about 3 ms for each letter. Prediction without context (SLL) gives the
  same tree or a syntax error, in 0.05 ms. LL is used only after an error.
* A word is a product of its letters. A product with a letter that the gold answer lacks differs from it.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Mapping
from typing import Any

LONGEST, LONGEST_LL = 4000, 1000
"""Most characters that are read, without and with the full context. The reference takes more than its 5 s for more."""

_SPACE = r"[ \t\r\n]*"
_ENDS = rf"(?!{_SPACE}[0-9\\])"
_END = re.compile(rf"(?<!\\)(?:[^ \t\r\nA-Za-z0-9+\-*/:(){{}}\[\]|^_'!<>=&\\.,]|\.{_ENDS}|(?P<comma>,){_ENDS})")
r"""The end of every expression: a character that is no token, a full stop that is no decimal point, or a comma that
groups no digits. A comma behind a parenthesis may separate arguments, and behind a backslash anything may go on."""
_NUMBER = "[0-9]+(?:,[0-9]{3})*"
_PLAIN = re.compile(rf"(?:d{_SPACE}[a-zA-Z]|[a-zA-Z]|{_NUMBER}|[ \t\r\n+-])*")
_FACTOR = re.compile(rf"d{_SPACE}[a-zA-Z]|[a-zA-Z]|{_NUMBER}|[+-]")
_UNSURE = re.compile(rf"[+-]{_SPACE}(?:[+-]|$)|x{_SPACE}[0-9]|[0-9][ \t\r\n]+[0-9]|[0-9]{{16}}")
"""Signs without a term, an `x` that may be a multiplication sign, numbers with white space inside, and long ones."""
_PRIME = 2**61 - 1
_FEW = 40
"""Factors up to which SymPy is always asked."""


class TooLong(Exception):
    """The reference would need more than its time limit for this text."""


def looked_at(text: str) -> str:
    """Return the beginning of the text that decides what `parse_latex` reads."""
    first_parenthesis = text.find("(")
    for found in _END.finditer(text):
        if found["comma"] is None or not 0 <= first_parenthesis < found.start():
            return text[: found.end()]
    return text


def is_other_sum(part: str, symbols: set[str]) -> bool:
    """Return whether the part is a long sum of products of letters that depends on a letter that is not in `symbols`.

    Prose is such a sum, with hyphens for minus signs. False where that is not known.
    """
    plain = _PLAIN.match(part)
    assert plain is not None
    rest, body = part[plain.end() :], plain.group()
    if (rest and (len(rest) > 1 or _END.match(part, plain.end()) is None)) or _UNSURE.search(body):
        return False
    factors = ["".join(factor.split()) for factor in _FACTOR.findall(body)]
    letters = {factor for factor in factors if factor.isalpha()}
    if len(factors) <= _FEW or letters <= symbols:
        return False
    ours = {letter: _residue(letter) for letter in letters}
    theirs = {letter: value if letter in symbols else _residue(f"{letter} again") for letter, value in ours.items()}
    return _sum(factors, ours) != _sum(factors, theirs)


def _sum(factors: list[str], point: Mapping[str, int]) -> int:
    """Return the value modulo the prime of a sum, from its signs, whole numbers and letters in order."""
    total, product = 0, 1
    if factors[0] in "+-":
        product, factors = 1 if factors[0] == "+" else -1, factors[1:]
    for factor in factors:
        if factor in "+-":
            total, product = total + product, 1 if factor == "+" else -1
        else:
            product = product * (point[factor] if factor.isalpha() else int(factor.replace(",", ""))) % _PRIME
    return (total + product) % _PRIME


def varies(expression: Any, symbols: set[str]) -> bool:
    """Return whether a rational expression depends on a symbol that is not in `symbols`; False where that is not known.

    Such an expression cannot equal one in `symbols` alone. It is evaluated modulo a prime, without rounding, at two
    points that differ in the other symbols only.
    """
    foreign = {symbol for symbol in expression.free_symbols if str(symbol) not in symbols}
    if not foreign:
        return False
    ours = {symbol: _residue(f"{symbol}") for symbol in expression.free_symbols}
    theirs = {symbol: _residue(f"{symbol} again") if symbol in foreign else ours[symbol] for symbol in ours}
    values = _value(expression, ours), _value(expression, theirs)
    return None not in values and values[0] != values[1]


def _residue(seed: str) -> int:
    return random.Random(seed).randrange(2, _PRIME)


def _value(expression: Any, point: Mapping[Any, int]) -> int | None:
    """Return the value modulo the prime; None unless it is made of sums, products and whole powers alone."""
    import sympy

    done: dict[Any, int] = {}
    stack = [expression]
    while stack:
        node = stack[-1]
        waiting = [] if node.is_Atom else [part for part in node.args if id(part) not in done]
        if waiting:
            stack += waiting
            continue
        stack.pop()
        values = [] if node.is_Atom else [done[id(part)] for part in node.args]
        if node.is_Symbol:
            value = point[node]
        elif isinstance(node, sympy.Rational):
            value = int(node.p) % _PRIME * pow(int(node.q), -1, _PRIME) % _PRIME
        elif node.is_Add:
            value = sum(values) % _PRIME
        elif node.is_Mul:
            value = functools.reduce(lambda one, other: one * other % _PRIME, values, 1)
        elif node.is_Pow and isinstance(node.exp, sympy.Integer) and (values[0] or node.exp > 0):
            value = pow(values[0], int(node.exp), _PRIME)
        else:
            return None
        done[id(node)] = value
    return done[id(expression)]


def parse(part: str) -> Any:
    """Return what `parse_latex` returns. Raises TooLong, or what SymPy raises.

    The expression is built from a syntax tree; no code is evaluated.
    """
    from antlr4.atn.PredictionMode import PredictionMode
    from sympy.parsing.latex import _parse_latex_antlr as antlr

    if len(part) > LONGEST:
        raise TooLong
    try:
        tree = _tree(part, PredictionMode.SLL)
    except (TimeoutError, RecursionError):
        raise
    except Exception:  # a syntax error, or SymPy's failure to describe it
        if len(part) > LONGEST_LL:
            raise TooLong from None
        tree = _tree(part, PredictionMode.LL)
    return antlr.convert_relation(tree)


def _tree(part: str, mode: Any) -> Any:
    import antlr4
    from sympy.parsing.latex import _parse_latex_antlr as antlr

    part = part.strip()
    listener = antlr.MathErrorListener(part)
    lexer = antlr.LaTeXLexer(antlr4.InputStream(part))
    parser = antlr.LaTeXParser(antlr4.CommonTokenStream(lexer))
    for recognizer in (lexer, parser):
        recognizer.removeErrorListeners()
        recognizer.addErrorListener(listener)
    parser._interp.predictionMode = mode
    return parser.math().relation()
