r"""MATH, 4-shot, as the reference renders and scores it (allenai/olmes `minerva_math_*::tulu`).

`exact_match` is lm-eval 0.4.3's Minerva metric: the sentence "Final Answer: The final answer is ...", normalised, and
equal to the gold answer by SymPy. `exact_match_flex` also takes the last `\boxed{}`, or else the last `$...$`, or else
the whole output, and also compares by Hendrycks' string normalisation.

Taken from the installed lm-eval: the exemplars, the tables of Minerva's normalisation and the reading of `\boxed{}`
(`minerva_math/utils.py`), and Hendrycks' comparison (`aime/utils.py`, the same functions as `hendrycks_math/utils.py`
without its import of `datasets`). Not taken: lm-eval's `is_equiv` and `normalize_final_answer`, which since 0.4.3 have
learnt a shortcut for equal strings, word boundaries for units and n-th roots.
"""

from __future__ import annotations

import contextlib
import functools
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from olmes_suite.records import SCORER_TIMEOUT, Scored
from olmes_suite.scoring import lm_eval_module, module_beside, scorer
from olmes_suite.scoring.patterns import between, unwrapped

_FINAL = re.compile("Final Answer: The final answer is")
_HOPE = re.compile(". I hope it is correct.")
_COMMANDS = tuple(re.compile(rf"\\{command}\{{") for command in ("text", "textbf", "overline"))
_CLOSED = re.compile(r"\}")
_INVALID = "[invalidanswer]"
_SYMPY_SECONDS = 5.0
_AGAIN_SECONDS = 0.5


def _latex() -> ModuleType:
    """`latex.py` beside this file."""
    return module_beside(__file__, "latex.py")


def _minerva() -> ModuleType:
    return lm_eval_module("minerva_math/utils.py")


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """The user's turn."""
    return f"Problem:\n{doc['problem']}\n\nSolution:"


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """The normalised last box of the solution."""
    return gold_answer(doc["solution"])


def fewshot(task: Any) -> list[dict[str, str]]:
    """Minerva's four exemplars, with two slips of the reference's copy: a stray brace, single line-end backslashes."""
    samples = [dict(sample) for sample in _minerva().list_fewshot_samples()]
    samples[0]["problem"] += "}"
    for sample in samples:
        for key in ("problem", "solution"):
            sample[key] = sample[key].replace("\\\\\n", "\\\n")
    return samples


def fewshot_target(doc: Mapping[str, Any]) -> str:
    """An exemplar's solution."""
    return doc["solution"]


def normalize(answer: str) -> str:
    """Minerva's normalisation of a final answer (Lewkowycz et al., 2022, appendix D), as in lm-eval 0.4.3."""
    text = answer.rpartition("=")[2]
    for before, after in _minerva().SUBSTITUTIONS:
        text = text.replace(before, after)
    for unit in _minerva().REMOVED_EXPRESSIONS:
        text = text.replace(unit, "")
    text = "\n".join(map(_first_formula, text.split("\n")))
    for command in _COMMANDS:
        text = unwrapped(command, _CLOSED, text)
    text = "\n".join(map(_without_box, text.split("\n")))
    text = re.sub(r"frac([^{])(.)", r"frac{\1}{\2}", text)
    text = re.sub(r"sqrt([^{])", r"sqrt{\1}", text)
    text = text.replace("$", "")
    digits = text.replace(",", "")
    return digits if digits.isdigit() else text


def _first_formula(line: str) -> str:
    """The first `$…$` of a line that has one: `re.sub(r".*?\\$(.*?)\\$.*", r"$\\1$", line)` in linear time."""
    parts = line.split("$", 2)
    return f"${parts[1]}$" if len(parts) == 3 else line


def _without_box(line: str) -> str:
    r"""The line without its first `\boxed{` and its last `}`: `re.sub(r"\\boxed\{(.*)\}", r"\1", line)`."""
    head, box, rest = line.partition("\\boxed{")
    inner, brace, tail = rest.rpartition("}")
    return head + inner + tail if box and brace else line


def boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{}`; None without one (or where it is an `\fbox`, as in the reference)."""
    found = _minerva().last_boxed_only_string(text)
    try:
        content: str | None = None if found is None else _minerva().remove_boxed(found)
    except AssertionError:
        return None
    return content


@functools.lru_cache(maxsize=8192)
def gold_answer(solution: str) -> str:
    """The answer of a solution of the data set."""
    return normalize(boxed(solution) or "")


def final_answer(text: str) -> str:
    """The answer in Minerva's closing sentence, normalised; a marker where there is no such sentence."""
    text += "I hope it is correct."
    found = next(between(_FINAL, _HOPE, text), None)
    return normalize(text[found.inner : found.inner_end].strip() if found else _INVALID)


def candidates(text: str) -> list[str]:
    """The answers that the flexible metric tries, in the reference's order."""
    minerva = final_answer(text)
    found = [] if minerva == _INVALID else [minerva]
    if (box := boxed(text)) is not None:
        found.append(normalize(box))
    if found:
        return found
    parts = text.split("$")
    return [normalize(parts[-2] if len(parts) > 2 else text)]


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[list[bool]]:
    """Raise TimeoutError after `seconds`; the list that is given is then no longer empty.

    No limit outside the main thread: signals do not reach it.

    The alarm rings again and again: an exception that is raised while Python runs a finalizer, or inside one of SymPy's
    own `except Exception`, is swallowed, and a single one would leave no limit at all.
    """
    rung: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield rung
        return
    armed = [True]

    def stop(signum: int, frame: Any) -> None:
        if armed:
            rung.append(True)
            raise TimeoutError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
    try:
        yield rung
    finally:
        armed.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@functools.lru_cache(maxsize=4096)
def _parsed(latex: str) -> Any:
    """SymPy's reading of the beginning of a text that decides it."""
    return _latex().parse(latex)


@functools.lru_cache(maxsize=4096)
def compared_by_sympy(answer: str, gold: str) -> bool | None:
    """Whether the difference simplifies to 0; None where that is not known within 5 seconds, which scores as different.

    Whatever SymPy cannot read is different. lm-eval 0.4.3 has no shortcut for equal strings, so an interval or a list
    is "wrong" even if it equals the gold.
    """
    import sympy

    rung: list[bool] = []
    try:
        with time_limit(_SYMPY_SECONDS) as rung:
            right, part = _parsed(_latex().looked_at(gold)), _latex().looked_at(answer)
            symbols = {str(symbol) for symbol in right.free_symbols}
            if _latex().is_other_sum(part, symbols):
                return False
            left = _parsed(part)
            difference = left - right
            if _latex().varies(left, symbols):
                return False
            if difference == 0 or sympy.simplify(difference) == 0:
                return True
    except ImportError:
        raise
    except (TimeoutError, _latex().TooLong):
        return None
    except Exception:  # the reference: any failure counts as different
        pass
    return None if rung else False


def same_by_sympy(answer: str, gold: str) -> bool:
    """The strict metric's comparison, and the flexible one's second."""
    return compared_by_sympy(answer, gold) is True


def same_by_text(answer: str, gold: str) -> bool:
    """The flexible metric's first comparison: equal by Hendrycks' string normalisation."""
    return bool(lm_eval_module("aime/utils.py").is_equiv(answer, gold))


def same(answer: str, gold: str) -> bool:
    """The flexible metric's comparison of one candidate."""
    return same_by_text(answer, gold) or same_by_sympy(answer, gold)


@scorer(isolated=True)
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Both metrics; the extracted answer is the first candidate of the flexible one."""
    gold_text = gold_answer(doc["solution"])
    minerva = final_answer(response)
    found = candidates(response)
    verdicts = [compared_by_sympy(minerva, gold_text)]
    strict = flexible = verdicts[0] is True
    for answer in found:
        if flexible:
            break
        flexible = same_by_text(answer, gold_text)
        if not flexible:
            verdicts.append(compared_by_sympy(answer, gold_text))
            flexible = verdicts[-1] is True
    no_answer = minerva == _INVALID and boxed(response) is None
    return Scored(
        {"exact_match": float(strict), "exact_match_flex": float(flexible)},
        found[0],
        failed=no_answer,
        flags=(SCORER_TIMEOUT,) if None in verdicts else (),
    )


def gold(doc: Mapping[str, Any]) -> str:
    """A response that scores 1 wherever the reference accepts its own gold answer (`rejected_golds.json`)."""
    return f"{doc['solution']}\nFinal Answer: The final answer is ${boxed(doc['solution'])}$. I hope it is correct."


def corrupt(doc: Mapping[str, Any]) -> str:
    """A response that scores 0."""
    return "Nothing follows.\nFinal Answer: The final answer is $-987654321012345$. I hope it is correct."
