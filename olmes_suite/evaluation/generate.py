"""Generation: recorded responses are reused, new ones are appended at once, complete documents are scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from olmes_suite.evaluation.fingerprint import metric_names
from olmes_suite.evaluation.plan import Leaf, TaskPlan
from olmes_suite.evaluation.pool import ScoringPool
from olmes_suite.models.base import Backend
from olmes_suite.records import Generated, Instance, Request, Response, Scored, canonical_json, sha256
from olmes_suite.runs.store import Line, ResponseFile
from olmes_suite.scoring.samples import PASS_AT, majorities, over_samples
from olmes_suite.scoring.scorers import DeferredScorer, SandboxedScorer, Scorer

CHUNK = 4096
"""Number of documents whose requests are in memory at one time."""

Progress = Callable[[str, int, int], None]
"""Called with the task and the numbers of documents finished and tokens generated since the last call."""


def sample_seed(seed: int, key: str, sample: int) -> int:
    """Derive the seed of a sample from the run's seed, the request's key and the sample's index."""
    return int(sha256(canonical_json([seed, key, sample]))[:15], 16)


@dataclass(slots=True)
class OpenDocument:
    """A document whose answers are being collected."""

    leaf: Leaf
    doc_id: int
    doc: dict[str, Any]
    requests: list[Request]
    answers: dict[tuple[int, int], Response] = field(default_factory=dict)

    @property
    def expected(self) -> int:
        """Number of answers that complete the document."""
        return sum(request.samples for request in self.requests)

    @property
    def complete(self) -> bool:
        """Whether all answers have arrived."""
        return len(self.answers) == self.expected


@dataclass(slots=True)
class _Ask:
    """A request to the model and the documents that share it."""

    key: str
    request: Request
    sharers: list[tuple[Part, OpenDocument, int]]
    samples: list[int]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A complete document of a deferred task, which is scored after the candidate model has finished all tasks."""

    leaf: Leaf
    doc_id: int
    doc: dict[str, Any]
    responses: tuple[str, ...]
    flags: frozenset[str] = frozenset()
    generated: tuple[Generated, ...] = ()


class Scoring:
    """Collects the scored documents of a task, and the documents that other models will score."""

    def __init__(self, pool: ScoringPool) -> None:
        self.pool = pool
        self.instances: dict[tuple[str, int], Instance] = {}
        self.waiting: list[Waiting] = []

    def submit(self, opened: OpenDocument) -> None:
        """Score a complete document, or store it for later if its scorer is deferred."""
        leaf, answers = opened.leaf, [opened.answers[place] for place in sorted(opened.answers)]
        ranked = answers[0].loglikelihood is not None
        flags = response_flags(answers)
        generated = () if ranked else tuple(map(Generated.of, answers))
        scorer = leaf.task.scorer
        responses: list[Any] = [a.text or "" for a in answers]
        if ranked:
            pairs = isinstance(scorer, Scorer) and scorer.takes_greedy
            responses = [[(a.loglikelihood, bool(a.is_greedy)) if pairs else a.loglikelihood for a in answers]]
        if isinstance(scorer, DeferredScorer):
            self.waiting.append(Waiting(leaf, opened.doc_id, opened.doc, tuple(responses), frozenset(flags), generated))
            return

        def done(scored: Scored, samples: list[Scored], timed_out: bool) -> None:
            self.instances[leaf.name, opened.doc_id] = make_instance(
                leaf, opened.doc_id, opened.doc, scored, samples, flags=flags, timed_out=timed_out,
                generated=generated,
            )  # fmt: skip

        self.pool.submit(
            scorer,
            tuple(metric_names(leaf.task)),
            opened.doc,
            responses,
            where=f"{leaf.name} document {opened.doc_id}",
            done=done,
        )


def make_instance(
    leaf: Leaf,
    doc_id: int,
    doc: dict[str, Any],
    scored: Scored,
    samples: list[Scored],
    *,
    flags: AbstractSet[str],
    timed_out: bool,
    generated: tuple[Generated, ...] = (),
) -> Instance:
    """Build the record of a scored document, with its cluster, reference and flags."""
    if len(samples) > 1:
        scored = _over_samples(leaf, scored, samples)
    all_flags = flags | set(scored.flags)
    all_flags |= ({"extraction_failed"} if scored.failed else set()) | ({"scorer_timeout"} if timed_out else set())
    verdicts = {str(sample.verdict).split(":")[0] for sample in samples}
    all_flags |= ({"sandbox_error"} if "error" in verdicts else set()) | (
        {"scorer_timeout"} if "timeout" in verdicts else set()
    )
    return Instance(
        leaf.name,
        doc_id,
        leaf.cluster_of(doc, doc_id),
        scored,
        tuple(samples),
        leaf.task.doc_to_target(doc),
        tuple(sorted(all_flags)),
        leaf.stratum_of(doc),
        generated,
    )


def _over_samples(leaf: Leaf, scored: Scored, samples: list[Scored]) -> Scored:
    """Return the scores of a document with several samples.

    Where the user asked for them, they are averaged. A task that repeats by itself keeps its own scores, and gets a
    majority's where those are over all samples.
    """
    votes = not isinstance(leaf.task.scorer, SandboxedScorer)
    if leaf.task.averages_samples:
        return over_samples(scored, samples, leaf.primary, votes=votes)
    if votes and leaf.primary.startswith(PASS_AT):
        return replace(scored, scores=scored.scores | majorities(samples, leaf.primary))
    return scored


def response_flags(answers: list[Response]) -> set[str]:
    """Return the flags of a document's answers: truncated, length, empty, unclosed."""
    flags = set()
    for answer in answers:
        if answer.truncated:
            flags.add("truncated")
        if answer.finish_reason == "length":
            flags.add("length")
        if answer.text is not None and not answer.text.strip():
            flags.add("empty")
        if answer.unclosed:
            flags.add("unclosed")
    return flags


@dataclass(frozen=True, slots=True)
class Part:
    """A task to generate, with the file of its responses and its scores."""

    plan: TaskPlan
    file: ResponseFile
    scoring: Scoring


def generate(parts: Sequence[Part], backend: Backend, seed: int, progress: Progress) -> None:
    """Generate all answers of these tasks and submit each complete document to scoring. Raises RequestFailed."""
    documents = (
        (part, leaf, *document) for part in parts for leaf in part.plan.leaves for document in leaf.documents()
    )
    while chunk := list(islice(documents, CHUNK)):
        asks = _open(chunk, backend, progress)
        if asks:
            _ask(asks, backend, seed, progress)
        if backend.stop_requested:
            raise KeyboardInterrupt


def _open(chunk: list[tuple[Part, Leaf, int, dict[str, Any]]], backend: Backend, progress: Progress) -> list[_Ask]:
    """Build the chunk's requests, reuse recorded answers, and return the other requests, equal ones once."""
    asks: dict[str, _Ask] = {}
    finished: list[tuple[Part, OpenDocument]] = []
    for part, leaf, doc_id, doc in chunk:
        opened = OpenDocument(leaf, doc_id, doc, leaf.requests(doc_id, doc, backend.chat))
        for request in opened.requests:
            key = request.key(backend.fingerprint)
            missing = []
            for sample in range(request.samples):
                line = part.file.lines.get((leaf.name, doc_id, request.index, sample))
                if line is not None and line.key == key:
                    opened.answers[request.index, sample] = line.response
                else:
                    missing.append(sample)
            if missing:
                ask = asks.setdefault(key, _Ask(key, request, [], []))
                ask.sharers.append((part, opened, request.index))
                ask.samples = sorted({*ask.samples, *missing})
        if opened.complete:
            finished.append((part, opened))
    for part, opened in finished:
        part.scoring.submit(opened)
        progress(part.plan.name, 1, 0)
    return list(asks.values())


def _ask(asks: list[_Ask], backend: Backend, seed: int, progress: Progress) -> None:
    seeds: list[list[int | None]] = [
        [sample_seed(seed, ask.key, sample) if sample in ask.samples else None for sample in range(ask.request.samples)]
        for ask in asks
    ]
    for position, sample, response in backend.run([ask.request for ask in asks], seeds):
        tokens = response.completion_tokens
        for part, opened, index in asks[position].sharers:
            if (index, sample) in opened.answers:
                continue
            opened.answers[index, sample] = response
            part.file.append([Line(asks[position].key, opened.leaf.name, opened.doc_id, index, sample, response)])
            if opened.complete:
                part.scoring.submit(opened)
            progress(part.plan.name, int(opened.complete), tokens)
            tokens = 0  # a shared answer counts once
