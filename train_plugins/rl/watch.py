"""The watch over rollouts: runs without an end of text, without spread, with ever more unclosed thoughts or one answer.

Pure functions of the statistics of rollouts. Two of the alarms state a fact about the last rollouts (`no_end`,
`no_spread`). The other two compare shares: the last `RECENT` rollouts with those before. Responses to one prompt are
taken as correlated (`CORRELATION`). Simulations show how often a share that only fluctuates raises an alarm.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

Kind = Literal["no_end", "no_spread", "unclosed", "repeated"]
KINDS: tuple[Kind, ...] = get_args(Kind)
RUN = 5
"""Rollouts in a row without spread that raise the alarm; `FEWER` if they have `GROUPS` groups together."""
FEWER, GROUPS = 4, 32
ENDLESS_RUN = 3
NEARLY_NONE, NEARLY_ALL, MOST = 0.05, 0.95, 0.8
"""Shares: responses that end; groups without spread; responses of one answer, or with unclosed thoughts."""
RECENT, BEFORE, FIRST, LAG = 3, 50, 20, 5
"""Rollouts that are compared: the last ones with up to `BEFORE` that ended `LAG` rollouts ago, and with the first."""
RISE, ERRORS, SURPRISE = 0.1, 4.0, 9.0
"""A rise counts if it has this size, lies so many standard errors above earlier rollouts, and is improbable by so many
natural logarithms."""
SURE = 5.0
"""The same for a share that is high all the time, against a half."""
CORRELATION = 0.5
"""Correlation of responses to one prompt, as assumed."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """The statistics of a rollout of all processes."""

    step: int
    prompts: int
    responses: int
    ended: float
    """Share of responses that end by themselves."""
    flat: float | None = None
    """Share of prompts all of whose responses have the same score; None with one response per prompt."""
    unclosed: float | None = None
    """Share of responses that end inside a thought; None for a model without thoughts."""
    repeated: float | None = None
    """Share of the responses with the answer that most prompts share (`most_repeated`)."""
    verified: float | None = None
    """Mean verified fraction of the responses with that answer."""

    @property
    def independent(self) -> float:
        """The effective number of responses: those of a group are correlated (`CORRELATION`), so they count less."""
        group = self.responses / max(self.prompts, 1)
        return self.responses / (1 + max(group - 1, 0) * CORRELATION)


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that the watch names."""

    kind: Kind
    step: int
    text: str

    @property
    def line(self) -> str:
        """The alarm as a line of the log."""
        return f"warning: watch: {self.kind}: {self.text}"

    @property
    def note(self) -> str:
        """The alarm as a line of the lineage."""
        return f"{self.kind}: {self.text}"


@dataclass(slots=True)
class Watch:
    """The statistics of the rollouts so far, and the alarms raised; each kind is raised once in a stage."""

    history: list[Rollout] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)

    def add(self, rollout: Rollout) -> list[Alarm]:
        """Add a rollout and return the new alarms."""
        self.history.append(rollout)
        named = {alarm.kind for alarm in self.alarms}
        new = [alarm for alarm in examine(self.history) if alarm.kind not in named]
        self.alarms += new
        return new

    def as_data(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {"history": [asdict(one) for one in self.history], "alarms": [asdict(one) for one in self.alarms]}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Watch:
        """Return the watch of a checkpoint."""
        rollouts = [Rollout(**one) for one in data.get("history", ())]
        return cls(rollouts, [Alarm(**one) for one in data.get("alarms", ())])


def examine(history: Sequence[Rollout]) -> list[Alarm]:
    """Return the alarms that the last rollout of a history raises."""
    found = (_no_end(history), _no_spread(history), _unclosed(history), _repeated(history))
    return [alarm for alarm in found if alarm is not None]


def _no_end(history: Sequence[Rollout]) -> Alarm | None:
    last = history[-ENDLESS_RUN:]
    if len(last) < ENDLESS_RUN or max(one.ended for one in last) > NEARLY_NONE:
        return None
    share = sum(one.ended for one in last) / len(last)
    text = (
        f"in {len(last)} rollouts in a row, up to step {last[-1].step}, {100 * share:.0f} % of the responses ended by "
        "themselves; check that the checkpoint writes the tokenizer's end of text, and raise "
        "trainer.max_completion_length"
    )
    return Alarm("no_end", last[-1].step, text)


def _no_spread(history: Sequence[Rollout]) -> Alarm | None:
    run = 0
    for one in reversed(history):
        if one.flat is None or one.flat < NEARLY_ALL:
            break
        run += 1
    groups = sum(one.prompts for one in history[len(history) - run :])
    if run < (FEWER if groups >= GROUPS else RUN):
        return None
    text = (
        f"in {run} rollouts in a row, up to step {history[-1].step}, all responses to a prompt got the same reward, so "
        "nothing is learnt; check the verifiers, the prompts' difficulty and trainer.temperature"
    )
    return Alarm("no_spread", history[-1].step, text)


def _unclosed(history: Sequence[Rollout]) -> Alarm | None:
    found = rise([(one.unclosed, one.independent) for one in history])
    if found is None:
        return None
    before, now = found
    text = (
        f"{100 * now:.0f} % of the responses of the last rollouts, up to step {history[-1].step}, end inside their "
        f"thought{_from(before)}; they get no reward: raise trainer.max_completion_length, or reward short thoughts"
    )
    return Alarm("unclosed", history[-1].step, text)


def _repeated(history: Sequence[Rollout]) -> Alarm | None:
    found = rise([(one.repeated, one.independent) for one in history])
    if found is None:
        return None
    before, now = found
    verified = history[-1].verified
    worth = "" if verified is None else f", of which the verifiers accept {100 * verified:.0f} %"
    text = (
        f"{100 * now:.0f} % of the responses of the last rollouts, up to step {history[-1].step}, give the same answer "
        f"to different prompts{_from(before)}{worth}: read some of them, the verifier may be hacked"
    )
    return Alarm("repeated", history[-1].step, text)


def _from(before: float | None) -> str:
    return "" if before is None else f", up from {100 * before:.0f} %"


def rise(shares: Sequence[tuple[float | None, float]]) -> tuple[float | None, float] | None:
    """Return (share before, share now) if the share has risen, or (None, share now) if it is high all the time.

    `shares` are the rollouts' shares, each with the number of independent responses behind it.
    """
    known = [(share, size) for share, size in shares if share is not None]
    now = known[-RECENT:]
    if len(now) < RECENT:
        return None
    share, size = _pooled(now)
    for before in _references(known):
        earlier, behind = _pooled(before)
        if share - earlier >= RISE and _surprise(share, size, earlier, behind) >= SURPRISE and _apart(share, before):
            return earlier, share
    for length in (FEWER, RUN):
        high = known[-length:]
        level, behind = _pooled(high)
        if len(high) == length and min(one for one, _ in high) >= MOST and behind * _entropy(level, 0.5) >= SURE:
            return None, level
    return None


def _references(known: Sequence[tuple[float, float]]) -> list[Sequence[tuple[float, float]]]:
    """Return the earlier rollouts to compare with, those shortly before and the first; at least two each."""
    lag = LAG if len(known) >= LAG + RECENT else RECENT
    earlier = known[:-lag]
    return [part for part in (earlier[-BEFORE:], earlier[:FIRST]) if len(part) >= 2]


def _pooled(part: Sequence[tuple[float, float]]) -> tuple[float, float]:
    size = sum(one for _, one in part)
    return sum(share * one for share, one in part) / size, size


def _surprise(share: float, size: float, earlier: float, behind: float) -> float:
    """Return minus the logarithm of Chernoff's bound on the probability of such a share at the earlier level.

    The bound (1952, Annals of Mathematical Statistics 23, 493) is n times the relative entropy of the two shares; it
    holds for few responses and for shares near 0, where a normal approximation does not. The earlier level is taken
    with one more response of each kind.
    """
    return size * _entropy(share, (earlier * behind + 1) / (behind + 2))


def _entropy(share: float, level: float) -> float:
    """Return the relative entropy of two shares, in natural logarithms."""
    terms = ((share, level), (1 - share, 1 - level))
    return sum(one * math.log(one / other) for one, other in terms if one > 0)


def _apart(share: float, before: Sequence[tuple[float, float]]) -> bool:
    """Return whether a share lies `ERRORS` standard errors above earlier rollouts, by the spread between them."""
    if len(before) < LAG:
        return True
    mean = sum(value for value, _ in before) / len(before)
    variance = sum((value - mean) ** 2 for value, _ in before) / (len(before) - 1)
    return share - mean >= ERRORS * math.sqrt(variance * (1 / len(before) + 1 / RECENT))


def most_repeated(prompts: Sequence[int], answers: Sequence[int]) -> tuple[float, int | None]:
    """Return the share of the responses with the answer that prompts have most in common, and that answer.

    An answer counts only if different prompts got it: a right answer that all responses to a prompt share is no sign of
    anything. Answers are hashes; the share is 0 and the answer None if no two prompts share one.
    """
    asked = Counter(prompts)
    given: dict[int, Counter[int]] = {}
    for prompt, answer in zip(prompts, answers, strict=True):
        given.setdefault(answer, Counter())[prompt] += 1
    shared = {
        answer: sum(count / asked[prompt] for prompt, count in by.items()) / len(asked)
        for answer, by in given.items()
        if len(by) > 1
    }
    best = max(shared, key=lambda answer: (shared[answer], -answer), default=None)
    return (0.0, None) if best is None else (shared[best], best)
