"""Public helpers for the scoring functions of tasks; they import only the standard library.

A scorer is a function of a document and a response::

    @scorer()
    def score(doc, response: str) -> Scored:
        answer = extract(response)
        return Scored({"exact_match": float(answer == doc["answer"])}, answer, failed=not answer)

The decorator makes it usable as lm-eval's `process_results` (a function of a document and a list of results) and by
this package's runner. Log-likelihood tasks pass the list of the choices' log-likelihoods instead of a response.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import re
import string
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from olmes_suite.errors import UsageError
from olmes_suite.records import Scored

Doc = Mapping[str, Any]
ScoreFunction = Callable[[Doc, Any], Scored]


class Scorer:
    """A scoring function with the settings that the runner needs."""

    takes_greedy = False
    """Whether log-likelihoods are passed as (value, is greedy), is greedy: the continuation is the greedy answer."""

    def __init__(self, function: ScoreFunction, *, isolated: bool, timeout: float, version: int) -> None:
        """`isolated`: run in a worker process that is killed after `timeout` seconds for one document."""
        self.function, self.isolated, self.timeout, self.version = function, isolated, timeout, version
        functools.update_wrapper(self, function)

    def __call__(self, doc: Doc, results: Sequence[Any]) -> dict[str, float | None]:
        """Score a document from the list of its results, as lm-eval's `process_results`."""
        if results and isinstance(results[0], tuple):
            return dict(self.function(doc, [loglikelihood for loglikelihood, _ in results]).scores)
        first = results[0]
        responses = list(first) if isinstance(first, list) else [first]
        return dict(self.document(doc, responses)[0].scores)

    def one(self, doc: Doc, response: Any) -> Scored:
        """Score a response: a string, or the list of log-likelihoods of the choices."""
        return self.function(doc, response)

    def document(self, doc: Doc, responses: Sequence[Any]) -> tuple[Scored, list[Scored]]:
        """Score all responses to a document. The document's score is that of the first one, as in the reference."""
        samples = [self.function(doc, response) for response in responses]
        return samples[0], samples


def scorer(*, isolated: bool = False, timeout: float = 60.0, version: int = 1) -> Callable[[ScoreFunction], Scorer]:
    """Mark a function as a task's scorer. Increase `version` when its verdicts change: it is in fingerprints."""

    def wrap(function: ScoreFunction) -> Scorer:
        return Scorer(function, isolated=isolated, timeout=timeout, version=version)

    return wrap


class SampledScorer(Scorer):
    """A scorer of tasks with several samples, whose metrics are `pass_at_k` over them; one sample has `pass_at_1`."""

    def __init__(
        self, function: ScoreFunction, *, ks: Sequence[int], isolated: bool, timeout: float, version: int
    ) -> None:
        super().__init__(function, isolated=isolated, timeout=timeout, version=version)
        self.ks = tuple(ks)

    def document(self, doc: Doc, responses: Sequence[Any]) -> tuple[Scored, list[Scored]]:
        """Score all samples. A metric with more samples than there are has no value."""
        samples = [self.function(doc, response) for response in responses]
        right = sum(sample.scores["pass_at_1"] == 1.0 for sample in samples)
        scores = {f"pass_at_{k}": pass_at(k, len(samples), right) for k in self.ks}
        flags = tuple(sorted({flag for sample in samples for flag in sample.flags}))
        failed = all(sample.failed for sample in samples)
        return Scored(scores, samples[0].extracted, failed=failed, flags=flags), samples


def sampled(
    *, ks: Sequence[int], isolated: bool = False, timeout: float = 60.0, version: int = 1
) -> Callable[[ScoreFunction], SampledScorer]:
    """Mark a function that scores `pass_at_1` of one sample as a task's scorer; `ks` are the metrics over samples."""

    def wrap(function: ScoreFunction) -> SampledScorer:
        return SampledScorer(function, ks=ks, isolated=isolated, timeout=timeout, version=version)

    return wrap


SandboxedFunction = Callable[[Doc, Sequence[str], Any], tuple[Scored, list[Scored]]]


class SandboxedScorer(Scorer):
    """A scorer that runs responses as programs; its function takes all responses to a document and the sandbox."""

    def __init__(self, function: SandboxedFunction, *, version: int) -> None:
        super().__init__(lambda doc, response: self.document(doc, [response])[1][0], isolated=False, timeout=0.0,
                         version=version)  # fmt: skip
        self.judge = function
        functools.update_wrapper(self, function)

    def __call__(self, doc: Doc, results: Sequence[Any]) -> dict[str, float | None]:
        """Score a document as lm-eval's `process_results`, without the metrics that have no value."""
        return {metric: value for metric, value in super().__call__(doc, results).items() if value is not None}

    def document(self, doc: Doc, responses: Sequence[Any], sandbox: Any = None) -> tuple[Scored, list[Scored]]:
        """Score all responses to a document, by default in the best sandbox of this machine.

        Raises MissingData if there is no sandbox.
        """
        return self.judge(doc, responses, sandbox or _sandbox())


@functools.lru_cache(maxsize=1)
def _sandbox() -> Any:
    """Return the sandbox for runs under lm-eval, which has no options for it."""
    from olmes_suite.scoring.tools import Tools

    return Tools().get("sandbox")


def sandboxed(*, version: int = 1) -> Callable[[SandboxedFunction], SandboxedScorer]:
    """Mark a function of (document, responses, sandbox) as a task's scorer. The task file has `needs: [sandbox]`."""

    def wrap(function: SandboxedFunction) -> SandboxedScorer:
        return SandboxedScorer(function, version=version)

    return wrap


def pass_at(k: int, n: int, c: int) -> float | None:
    """Estimate the probability that at least one of k samples is right, given c right ones of n; None if n < k.

    The unbiased estimator 1 − C(n−c, k) / C(n, k) of Chen et al. 2021 (arXiv 2107.03374), equation 1.
    """
    if n < k:
        return None
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


@dataclass(frozen=True, slots=True)
class Item:
    """A document with its responses, to be scored by a tool."""

    task: str
    """Leaf task, with its prefix."""
    doc_id: int
    doc: Doc
    responses: tuple[str, ...]


DeferredFunction = Callable[[Sequence[Item], Any], Iterator[tuple[int, Scored, list[Scored]]]]


class DeferredScorer:
    """A scorer that asks other models; it takes all documents of a leaf task after the candidate has finished."""

    isolated, timeout = False, 0.0

    def __init__(self, function: DeferredFunction, *, version: int) -> None:
        self.function, self.version = function, version
        functools.update_wrapper(self, function)

    def __call__(self, doc: Doc, results: Sequence[Any]) -> dict[str, float | None]:
        """Raise UsageError, because lm-eval's `process_results` has no tools."""
        raise UsageError(
            "this task is scored by another model: run it with `olmes eval` and its options --judge and --classifier"
        )

    def all(self, items: Sequence[Item], tools: Any) -> Iterator[tuple[int, Scored, list[Scored]]]:
        """Yield (position, score of the document, scores of the responses) in any order. Raises RequestFailed."""
        return self.function(items, tools)


def deferred(*, version: int = 1) -> Callable[[DeferredFunction], DeferredScorer]:
    """Mark a function of (items, `scoring.tools.Tools`) as a task's scorer; the task file has `needs: [TOOL, …]`."""

    def wrap(function: DeferredFunction) -> DeferredScorer:
        return DeferredScorer(function, version=version)

    return wrap


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(
    answer: str,
    reference: str,
    *,
    ignore: Sequence[str] = (),
    ignore_case: bool = True,
    ignore_punctuation: bool = True,
) -> float:
    """Compare as the reference's exact match: remove `ignore` patterns, lower-case, remove punctuation, compare.

    Source: allenai/olmes `dependencies/hf_evaluate/exact_match.py` (order of the steps matters).
    """
    sides = []
    for text in (answer, reference):
        for pattern in ignore:
            text = re.sub(pattern, "", text)
        if ignore_case:
            text = text.lower()
        if ignore_punctuation:
            text = text.translate(_NO_PUNCTUATION)
        sides.append(text)
    return float(sides[0] == sides[1])


def last_match(pattern: str, text: str, flags: int = 0) -> str | None:
    """Return group 1, or without groups the whole, of the last match of `pattern`; None without a match."""
    match = None
    for match in re.finditer(pattern, text, flags):  # noqa: B007 - only the last match is used
        pass
    if match is None:
        return None
    return match.group(1) if match.re.groups else match.group(0)


def lm_eval_task_file(path: str) -> Path:
    """Return the path of a file in the installed lm-eval's `tasks` folder, without importing lm-eval."""
    package = importlib.util.find_spec("lm_eval")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "tasks" / path


@functools.lru_cache(maxsize=8)
def lm_eval_module(path: str) -> ModuleType:
    """Load a Python file of lm-eval's `tasks` folder as a module, without importing lm-eval and torch."""
    file = lm_eval_task_file(path)
    spec = importlib.util.spec_from_file_location("lm_eval_file_" + re.sub(r"\W", "_", path), file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_loading = threading.RLock()
"""Held while a module is loaded: scoring threads must not see one whose code has not run to its end."""


@functools.lru_cache(maxsize=16)
def module_beside(file: str, name: str) -> ModuleType:
    """Load the module in the file `name` beside `file`; the folder of a task is not a package."""
    with _loading:
        return _module_beside(file, name)


def _module_beside(file: str, name: str) -> ModuleType:
    path = Path(file).with_name(name)
    title = f"olmes_suite_tasks_{path.parent.name}_{path.stem}"
    if title not in sys.modules or sys.modules[title].__file__ != str(path):
        spec = importlib.util.spec_from_file_location(title, path)
        assert spec is not None and spec.loader is not None
        module = sys.modules[title] = importlib.util.module_from_spec(spec)  # before its code: dataclasses look there
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[title]
            raise
    return sys.modules[title]


@functools.lru_cache(maxsize=64)
def lm_eval_config(path: str) -> dict[str, Any]:
    """Read a task file of the installed lm-eval, for example for its few-shot exemplars.

    `path` is relative to lm-eval's `tasks` folder; functions in the file stay names.
    """
    from olmes_suite.lm_eval_api import load_yaml

    config: dict[str, Any] = load_yaml(lm_eval_task_file(path), resolve_func=False)
    return config
