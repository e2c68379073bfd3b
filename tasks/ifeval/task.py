"""IFEval, 0-shot, as the reference scores it (allenai/olmes `ifeval::tulu`), with the installed lm-eval's checkers.

The checkers are those of google-research's `instruction_following_eval`. Two random choices of the reference are fixed
here: langdetect has a seed, and a checker that draws a parameter (rows 19 and 22 name a "letter" that is not one) uses
a generator with a seed for each document, the same for the strict and the loose reading.
"""

from __future__ import annotations

import contextlib
import functools
import io
import random
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from olmes_suite.constraints.loose import loose_variants
from olmes_suite.errors import OlmesError
from olmes_suite.records import Scored
from olmes_suite.scoring import language_resources as scorer_resources
from olmes_suite.scoring import module_beside, scorer


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the prompt, unchanged."""
    return doc["prompt"]


def doc_to_target(doc: Mapping[str, Any]) -> None:
    """Return None: there is no reference answer."""


@functools.lru_cache(maxsize=1)
def checkers() -> ModuleType:
    """Load lm-eval's registry of instructions, without the downloads that it starts on import."""
    import langdetect  # type: ignore[import-untyped]
    import nltk

    scorer_resources.extend_nltk_path()
    download = nltk.download
    nltk.download = lambda name: False
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the import prints messages
            from lm_eval.tasks.ifeval import instructions_registry
    finally:
        nltk.download = download
    langdetect.DetectorFactory.seed = 0
    return instructions_registry


_WITH_SENTENCES = frozenset({"length_constraints:number_sentences", "change_case:capital_word_frequency"})
"""The instructions whose checkers split sentences or words with NLTK."""


def resources(doc: Mapping[str, Any]) -> set[str]:
    """List the resources that the checkers of a document need."""
    return {"punkt_tab"} if _WITH_SENTENCES & set(doc["instruction_id_list"]) else set()


def followed(doc: Mapping[str, Any], variants: Sequence[str]) -> list[bool]:
    """Check, for each instruction, whether any variant of the response follows it. Blank variants follow none.

    As in the reference, arguments that are false are dropped (0 as well as None), and an instruction whose checker
    fails is not followed.
    """
    texts = [text for text in dict.fromkeys(variants) if text.strip()]
    results = []
    state = random.getstate()
    random.seed(f"ifeval {doc['key']}")
    try:
        for name, arguments in zip(doc["instruction_id_list"], doc["kwargs"], strict=True):
            check = _checker(name, arguments, doc["prompt"])
            results.append(any(_follows(check, text) for text in texts))
    finally:
        random.setstate(state)
    return results


def _checker(name: str, arguments: Mapping[str, Any] | None, prompt: str) -> Any:
    checker = checkers().INSTRUCTION_DICT[name](name)
    checker.build_description(**{key: value for key, value in (arguments or {}).items() if value})
    if "prompt" in (checker.get_instruction_args() or {}):
        checker.build_description(prompt=prompt)
    return checker


def _linear() -> ModuleType:
    """Load `linear.py` from this file's folder."""
    return module_beside(__file__, "linear.py")


def _follows(checker: Any, text: str) -> bool:
    linear = _linear().CHECKS.get(checker.id)
    try:
        return bool(linear(checker.get_instruction_args() or {}, text) if linear else checker.check_following(text))
    except OlmesError:
        raise
    except LookupError as error:
        if type(error) is not LookupError or scorer_resources.nltk_has("punkt_tab"):
            return False  # an index or a key that is not there, as below
        scorer_resources.require(["punkt_tab"])
        raise
    except Exception:  # the reference: an instruction whose checker fails is not followed
        return False


@scorer()
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score four accuracies; `inst_level_*` are means over the document's instructions, and their number the weight."""
    strict, loose = followed(doc, [response]), followed(doc, loose_variants(response))
    scores: dict[str, float | None] = {}
    for name, results in (("strict", strict), ("loose", loose)):
        scores[f"prompt_level_{name}_acc"] = float(all(results))
        scores[f"inst_level_{name}_acc"] = sum(results) / len(results)
    return Scored(scores, failed=not response.strip(), weight=float(len(strict)))


def gold(doc: Mapping[str, Any]) -> str | None:
    """Return a response that follows the prompt; only the sample documents have one."""
    return doc.get("_pass")


def corrupt(doc: Mapping[str, Any]) -> str | None:
    """Return a response that does not follow the prompt; only the sample documents have one."""
    return doc.get("_fail")
