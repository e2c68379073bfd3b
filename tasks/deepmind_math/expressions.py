"""Reading and comparing the answers of DeepMind Mathematics: SymPy's `parse_expr` without its `eval` of foreign code.

The reference calls `sympy.parse_expr` on the model's answer, which evaluates it as Python, with SymPy's and Python's
functions available. Here SymPy's tokenizer rewrites the text in the same way, but the result is evaluated only if its
syntax tree contains only arithmetic on numbers, symbols and a short list of functions, and if no power or factorial in
it is large enough to fill the memory. A refused answer counts as unreadable, which is wrong; answers of the kinds that
the data set has are read as in the reference.
"""

from __future__ import annotations

import ast
import functools
import math
import random
import re
from typing import Any

_LONGEST = 2000
_MOST_BITS = 20_000.0
_NAMES = re.findall(
    r"\w+",
    """Abs Add Float Function I Integer Max Min Mod Mul N Pow Rational Symbol acos asin atan binomial cbrt ceiling cos
    cosh cot exp factorial factorial2 floor gcd lcm ln log root sign sin sinh sqrt subfactorial tan tanh
    E nan oo pi zoo""",
)
_ALIASES = {"abs": "Abs", "max": "Max", "min": "Min"}
_GROWING = {"factorial", "factorial2", "subfactorial", "binomial", "exp", "Pow"}
_NODES = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Call, ast.Tuple, ast.List, ast.Set, ast.BinOp, ast.UnaryOp,
    ast.BoolOp, ast.Compare, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip


class Refused(ValueError):
    """Raised for a text that is not plain arithmetic, or whose value would be too large."""


@functools.lru_cache(maxsize=1)
def _names() -> dict[str, Any]:
    import sympy

    names: dict[str, Any] = {name: getattr(sympy, name) for name in _NAMES}
    names.update({alias: names[name] for alias, name in _ALIASES.items()})
    return {**names, "__builtins__": {}}


def parse(text: str) -> Any:
    """Parse a text as `sympy.parse_expr` does. Raises Refused, SyntaxError or SymPy's errors."""
    from sympy.parsing.sympy_parser import standard_transformations, stringify_expr

    if len(text) > _LONGEST:
        raise Refused("too long")
    names = dict(_names())
    code = stringify_expr(text, {}, names, standard_transformations).lstrip(" \t")
    tree = ast.parse(code, mode="eval")
    for node in ast.walk(tree):
        _check(node, names)
    _bits(tree.body)
    return eval(compile(tree, "<answer>", "eval"), names)  # only nodes and names that were checked


def _check(node: ast.AST, names: dict[str, Any]) -> None:
    """Refuse attributes, subscripts, lambdas, comprehensions, keywords, strings outside `Symbol("x")` and similar."""
    if not isinstance(node, _NODES) or isinstance(node, (ast.LShift, ast.MatMult)):
        raise Refused(type(node).__name__)
    if isinstance(node, ast.Name) and (node.id not in names or node.id.startswith("_")):
        raise Refused(node.id)
    if isinstance(node, ast.Call):
        function = node.func
        of_symbol = (
            isinstance(function, ast.Call) and isinstance(function.func, ast.Name) and function.func.id == "Function"
        )
        if node.keywords or not (isinstance(function, ast.Name) or of_symbol):
            raise Refused("call")
        if isinstance(function, ast.Name) and function.id in ("N", "Float") and len(node.args) != 1:
            raise Refused("digits")  # a precision of millions of digits
    if isinstance(node, ast.Constant) and not isinstance(node.value, (int, float, str, bool, type(None))):
        raise Refused("constant")
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Constant) and isinstance(child.value, str) and not _takes_text(node):
            raise Refused("string")


def _takes_text(node: ast.AST) -> bool:
    """Whether a call may have a text as argument: SymPy's tokenizer writes only identifiers and numbers as texts."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1):
        return False
    text = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
    if node.func.id in ("Symbol", "Function"):
        return isinstance(text, str) and text.isidentifier()
    return node.func.id == "Float" and isinstance(text, str) and all(c in "0123456789.eE+-_" for c in text)


def _bits(node: ast.AST) -> float:
    """Compute an upper bound of log2 of the value's size, with 1 for symbols. Raises Refused above the limit."""
    if isinstance(node, ast.Constant):
        bits = _bits_of_constant(node.value)
    elif isinstance(node, ast.BinOp):
        left_bits, right_bits = _bits(node.left), _bits(node.right)
        if isinstance(node.op, ast.Pow):
            bits = right_bits + 1 if _is_symbol(node.left) else left_bits * _size(right_bits)
        else:
            bits = max(left_bits, right_bits) + 1 if isinstance(node.op, (ast.Add, ast.Sub)) else left_bits + right_bits
    elif isinstance(node, ast.Call):
        bits = _bits_of_call(node)
    else:
        bits = max((_bits(child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)), default=2.0)
    if bits > _MOST_BITS:
        raise Refused("too large")
    return bits


def _bits_of_call(node: ast.Call) -> float:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name in ("Symbol", "Function"):
        return 1.0
    arguments = [_bits(argument) for argument in node.args]
    if name in _GROWING:
        size = math.prod(_size(bits) for bits in arguments) if name == "Pow" else _size(sum(arguments))
        return size * math.log2(size + 2)
    return sum(arguments) + 1


def _bits_of_constant(value: Any) -> float:
    if isinstance(value, str):
        number = abs(float(value)) if any(c.isdigit() for c in value) and not value.isidentifier() else 1.0
        return math.inf if math.isinf(number) else abs(math.log2(number)) + 1 if number else 1.0
    return float(int(value).bit_length() + 1) if isinstance(value, int) else 64.0


def _size(bits: float) -> float:
    return 2.0 ** min(bits, 64.0)


def _is_symbol(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Symbol"


@functools.lru_cache(maxsize=4096)
def parse_gold(text: str) -> Any:
    """Parse a gold answer, with a cache."""
    return parse(text)


def equal(gold: str, answer: str) -> bool:
    """Compare at one random point (within numpy's `allclose`), then symbolically; answers that fail are different.

    The reference draws a new point for each comparison; here the point is fixed, so that the verdict is reproducible.
    """
    try:
        return _equal(parse_gold(gold), parse(answer))
    except Exception:  # the reference: any failure counts as different
        return False


def _equal(gold: Any, answer: Any) -> bool:
    import sympy

    if not isinstance(gold, sympy.Expr) or not isinstance(answer, sympy.Expr):
        return bool(gold == answer)
    symbols = sorted(gold.free_symbols, key=str)
    if set(symbols) != answer.free_symbols:
        return False
    generator = random.Random(1234)
    point = {symbol: sympy.Float(generator.random()) for symbol in symbols}
    a, b = float(gold.subs(point)), float(answer.subs(point))
    if not (a == b or abs(a - b) <= 1e-8 + 1e-5 * abs(b)):
        return False
    return bool(gold.equals(answer))
