r"""MATH, 4-shot, as the reference renders and scores it (allenai/olmes `minerva_math_*::tulu`).

`exact_match` is lm-eval 0.4.3's Minerva metric: the answer in the sentence "Final Answer: The final answer is ...",
normalised, equals the gold answer by SymPy. `exact_match_flex` also accepts the last `\boxed{}`, otherwise the last
`$...$`, otherwise the whole output, and also compares by Hendrycks' string normalisation.

The installed lm-eval provides the exemplars, the tables of Minerva's normalisation and the reading of `\boxed{}`
(`minerva_math/utils.py`), and Hendrycks' comparison (`aime/utils.py`, the same functions as `hendrycks_math/utils.py`
without its import of `datasets`). Its `is_equiv` and `normalize_final_answer` are not used: since 0.4.3 they have a
shortcut for equal strings, word boundaries for units, and n-th roots.
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
    """Return the user turn."""
    return f"Problem:\n{doc['problem']}\n\nSolution:"


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """Return the normalised last box of the solution."""
    return gold_answer(doc["solution"])


def fewshot(task: Any) -> list[dict[str, str]]:
    """Return Minerva's four exemplars with two errors of the reference: a stray brace, single line-end backslashes."""
    samples = [dict(sample) for sample in _minerva().list_fewshot_samples()]
    samples[0]["problem"] += "}"
    for sample in samples:
        for key in ("problem", "solution"):
            sample[key] = sample[key].replace("\\\\\n", "\\\n")
    return samples


def fewshot_target(doc: Mapping[str, Any]) -> str:
    """Return an exemplar's solution."""
    return doc["solution"]


def normalize(answer: str) -> str:
    """Normalise a final answer as Minerva does (Lewkowycz et al., 2022, appendix D), as in lm-eval 0.4.3."""
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
    r"""Return the contents of the last `\boxed{}`; None without one (or for an `\fbox`, as in the reference)."""
    box = _minerva().last_boxed_only_string(text)
    try:
        content: str | None = None if box is None else _minerva().remove_boxed(box)
    except AssertionError:
        return None
    return content


@functools.lru_cache(maxsize=8192)
def gold_answer(solution: str) -> str:
    """Return the answer of one of the data set's solutions."""
    return normalize(boxed(solution) or "")


def final_answer(text: str) -> str:
    """Return the normalised answer of Minerva's closing sentence; a marker where there is no such sentence."""
    text += "I hope it is correct."
    match = next(between(_FINAL, _HOPE, text), None)
    return normalize(text[match.inner : match.inner_end].strip() if match else _INVALID)


def candidates(text: str) -> list[str]:
    """List the answers that the flexible metric tries, in the reference's order."""
    minerva = final_answer(text)
    answers = [] if minerva == _INVALID else [minerva]
    if (box := boxed(text)) is not None:
        answers.append(normalize(box))
    if answers:
        return answers
    parts = text.split("$")
    return [normalize(parts[-2] if len(parts) > 2 else text)]


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[list[bool]]:
    """Raise TimeoutError after `seconds`; the list that is yielded is then not empty any more.

    Outside the main thread there is no limit, because signals do not reach it.

    The alarm repeats: Python discards an exception that is raised in a finalizer, or within an `except Exception` of
    SymPy, so a single alarm might have no effect.
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
    """Parse the start of a text that decides the reading of SymPy."""
    return _latex().parse(latex)


@functools.lru_cache(maxsize=4096)
def compared_by_sympy(answer: str, gold: str) -> bool | None:
    """Whether the difference simplifies to 0; None where 5 seconds do not decide it, which scores as different.

    Answers that SymPy cannot read are different. lm-eval 0.4.3 has no shortcut for equal strings, so an interval or a
    list is wrong even if it equals the gold.
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
    """Whether one candidate equals the gold answer by the flexible metric."""
    return same_by_text(answer, gold) or same_by_sympy(answer, gold)


@scorer(isolated=True)
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score both metrics; the extracted answer is the first candidate of the flexible one."""
    gold_text = gold_answer(doc["solution"])
    minerva = final_answer(response)
    answers = candidates(response)
    verdicts = [compared_by_sympy(minerva, gold_text)]
    strict = flexible = verdicts[0] is True
    for answer in answers:
        if flexible:
            break
        flexible = same_by_text(answer, gold_text)
        if not flexible:
            verdicts.append(compared_by_sympy(answer, gold_text))
            flexible = verdicts[-1] is True
    no_answer = minerva == _INVALID and boxed(response) is None
    return Scored(
        {"exact_match": float(strict), "exact_match_flex": float(flexible)},
        answers[0],
        failed=no_answer,
        flags=(SCORER_TIMEOUT,) if None in verdicts else (),
    )


def gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1 unless the reference rejects its own gold answer (`rejected_golds.json`)."""
    return f"{doc['solution']}\nFinal Answer: The final answer is ${boxed(doc['solution'])}$. I hope it is correct."


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0."""
    return "Nothing follows.\nFinal Answer: The final answer is $-987654321012345$. I hope it is correct."
