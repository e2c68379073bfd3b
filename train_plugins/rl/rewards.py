"""The rewards of a response by name: what is asked of which verifier, and the weighted sum of the verdicts.

A reward asks one verifier, or those that the row names (`verifier: row`). Its value is the verified fraction, 0 to 1;
several verifiers of a row are added, each with its weight. A response that lacks a verdict has no score.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import UsageError, nearest
from train_plugins.data.rlvr_rows import check_names, check_truth, names_in, prompt_row, table, verifiers_of, with_truth
from train_plugins.rl.answers import Answers, verify
from train_plugins.rl.keys import ROW, RewardKeys, RlvrKeys, rewards_of
from train_plugins.verifiers import Call, Malformed, Verifiers, registry
from train_plugins.verifiers.judge_keys import check_judge
from train_plugins.verifiers.truths import COMPARED, read_truth

if TYPE_CHECKING:
    from collections.abc import Iterable

WEIGHTS = "reward_weights"
"""The row's column with weights of its own: a mapping from names of rewards, or of the row's verifiers, to numbers."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The verdicts on one response."""

    total: float | None
    """The weighted sum of the rewards, before the recipe's factor; None: a verdict is missing, so there is no score."""
    verified: float | None
    """The verified fraction: of the row's verifiers if a reward asks them, otherwise of all rewards."""
    rewards: Mapping[str, float | None]
    """Value by reward, without its weight; a reward with weight 0 for this row is absent."""
    verifiers: Mapping[str, float | None]
    """Fraction by verifier of the row."""
    answer: str | None = None
    """The response without its thought; None where the thought did not end."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One verdict that a reward needs."""

    reward: str
    verifier: str
    truth: Any
    weight: float
    """Weight within the reward."""
    reads: str | None


@dataclass(frozen=True, slots=True)
class Rewards:
    """The rewards of a recipe, whose rows have their verifiers' registered names."""

    keys: RlvrKeys
    named: Mapping[str, RewardKeys] = field(default_factory=dict)

    @classmethod
    def of(cls, keys: RlvrKeys) -> Rewards:
        """Return the rewards of a recipe's keys."""
        named = rewards_of(keys)
        return cls(keys, {name: replace(one, verifier=_registered(one.verifier)) for name, one in named.items()})

    def verifiers(self, in_rows: Iterable[str]) -> tuple[str, ...]:
        """Return the names of all verifiers to load; `in_rows` are the values of the rows' column `verifier`."""
        names = {name for text in in_rows for name in names_in(text)} if self.asks_rows else set()
        return tuple(sorted(names | {one.verifier for one in self.named.values() if one.verifier != ROW}))

    @property
    def asks_rows(self) -> bool:
        """Whether a reward asks the verifiers that rows name."""
        return any(one.verifier == ROW for one in self.named.values())

    def asked(self, row: Mapping[str, Any], extra: Mapping[str, Any]) -> list[Asked]:
        """Return the verdicts that a row needs; `extra` are its other columns."""
        weights = own_weights(extra)
        needed = []
        for name, one in self.named.items():
            if self.weight(name, weights) == 0:
                continue
            if one.verifier != ROW:
                truth = extra.get(one.column) if one.column else one.truth
                needed.append(Asked(name, one.verifier, truth, 1.0, one.reads))
                continue
            for verifier, truth in verifiers_of(row["verifier"], json.loads(row["truth"])):
                needed.append(Asked(name, verifier, truth, weights.get(verifier, 1.0), one.reads))
        return needed

    def weight(self, reward: str, own: Mapping[str, float]) -> float:
        """Return the weight of a reward in a row with weights of its own."""
        return own.get(reward, self.named[reward].weight)

    def calls(self, row: Mapping[str, Any], text: str, ids: Sequence[int], answers: Answers | None
    ) -> list[Call | None]:  # fmt: skip
        """Return the call for each verdict that a response needs; None where its thought did not end."""
        extra = json.loads(row["extra"])
        fields = {**extra, "messages": row["prompt"], "row": row["row"]}
        calls: list[Call | None] = []
        for one in self.asked(row, extra):
            call = Call(one.verifier, text, one.truth, fields)
            if one.verifier in registry.OF_FORM:
                more: dict[str, Any] = {"response_tokens": len(ids)}
                if answers is not None and answers.thoughts is not None:
                    reader = answers.thoughts.reader
                    more["thought_marks"] = [reader.open, *reader.close]
                whole = answers.marked(text, ids) if answers else text
                calls.append(replace(call, response=whole, row={**fields, **more}))
            else:
                calls.append(answers.of(call, ids, one.reads) if answers else call)
        return calls

    def combine(self, row: Mapping[str, Any], fractions: Sequence[float | None]) -> Scored:
        """Combine the verdicts on a response, in the order of `calls`."""
        extra = json.loads(row["extra"])
        weights = own_weights(extra)
        asked = list(zip(self.asked(row, extra), fractions, strict=True))
        values: dict[str, float | None] = {}
        for name in dict.fromkeys(one.reward for one, _ in asked):
            values[name] = _sum([(one.weight, value) for one, value in asked if one.reward == name])
        total = _sum([(self.weight(name, weights), value) for name, value in values.items()])
        of_row = [(one, value) for one, value in asked if self.named[one.reward].verifier == ROW]
        counted = [(one.weight, value) for one, value in of_row] or [
            (max(self.weight(name, weights), 0.0), value) for name, value in values.items()
        ]
        return Scored(total, _mean(counted), values, {one.verifier: value for one, value in of_row})

    def score(
        self, verifiers: Verifiers, rows: Sequence[Mapping[str, Any]], texts: Sequence[str],
        ids: Sequence[Sequence[int]], answers: Answers | None,
    ) -> list[Scored]:  # fmt: skip
        """Return the verdicts on responses, in order."""
        calls = [self.calls(row, text, tokens, answers) for row, text, tokens in zip(rows, texts, ids, strict=True)]
        fractions = iter(verify(verifiers, [call for several in calls for call in several]))
        scored = []
        for row, text, tokens, several in zip(rows, texts, ids, calls, strict=True):
            one = self.combine(row, [next(fractions) for _ in several])
            scored.append(replace(one, answer=text if answers is None else answers.answer(text, tokens)))
        return scored


def own_weights(extra: Mapping[str, Any]) -> dict[str, float]:
    """Return the weights in a row's column `reward_weights`. Raises ValueError."""
    given = extra.get(WEIGHTS)
    if given is None:
        return {}
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            given = None
    if not isinstance(given, Mapping):
        raise ValueError(f"a column {WEIGHTS!r} that is no mapping from names to numbers")
    weights = {str(name): value for name, value in given.items() if value is not None}
    for name, value in weights.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"a column {WEIGHTS!r}: the weight of {name} is no number: {value!r}")
    return weights


def check_row(row: Mapping[str, Any], keys: RlvrKeys, names: Mapping[str, str]) -> None:
    """Check a row's weights, and the truths that rewards read from its columns. Raises ValueError.

    `names` maps the names of verifiers in the data to registered ones.
    """
    extra = json.loads(row["extra"])
    rewards = rewards_of(keys)
    given = [name for name, _ in verifiers_of(row["verifier"], json.loads(row["truth"]))]
    known = [*rewards, *(names.get(name, name).lower() for name in given)]
    for name in own_weights(extra):
        if name not in known:
            raise ValueError(f"a column {WEIGHTS!r} with an unknown reward {name!r}{nearest(name, known)}; "
                             f"known: {', '.join(known)}")  # fmt: skip
    for one in rewards.values():
        if one.column:
            if extra.get(one.column) is None:
                raise ValueError(f"no column {one.column!r}, with which the verifier {one.verifier} compares")
            check_truth(one.verifier.lower(), extra[one.column], extra, one.column)
        elif one.verifier != ROW and one.truth is None:  # it reads the row's other columns, if any
            check_truth(one.verifier.lower(), None, extra)


def _check_verifiers(keys: RlvrKeys) -> None:
    """Raise UsageError for a name in `rlvr.verifiers` that is no verifier's."""
    named = keys.verifiers or ()
    for key, name in named.items() if isinstance(named, Mapping) else enumerate(named):
        try:
            registry.check([name])
        except UsageError as error:
            raise UsageError(f"rlvr.verifiers.{key}: {error}") from None


def check_rewards(keys: RlvrKeys) -> None:
    """Check the verifiers that the recipe names, the rewards and the judge that they ask. Raises UsageError."""
    _check_verifiers(keys)
    if keys.judge is not None:
        check_judge(keys.judge)
    if keys.rewards is None:
        return
    if not keys.rewards:
        raise UsageError("rlvr.rewards: name at least one reward, or remove the key")
    for name, one in rewards_of(keys).items():
        where = f"rlvr.rewards.{name}"
        if not name.strip() or "/" in name:
            raise UsageError(f"{where}: a reward's name must be a text without '/'")
        if not math.isfinite(one.weight):
            raise UsageError(f"{where}: the weight must be a number, not {one.weight}")
        if one.truth is not None and one.column is not None:
            raise UsageError(f"{where}: give either truth or column")
        if one.verifier == ROW:
            if one.truth is not None or one.column is not None:
                raise UsageError(f"{where}: `verifier: row` reads the row's ground truth; remove truth and column")
            continue
        try:
            (registered,) = registry.check([one.verifier])
            if one.truth is not None:
                read_truth(registered, one.truth, {})
            elif one.column is None and registered in COMPARED:
                raise UsageError(f"the verifier {registered} compares with a ground truth: set truth or column")
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
        except Malformed as error:
            raise UsageError(f"{where}: the verifier {one.verifier} cannot read its truth: {error}") from None
    if all(one.weight == 0 for one in rewards_of(keys).values()):
        raise UsageError("rlvr.rewards: all weights are 0, so there is nothing to learn from")


def check_judge_of(keys: RlvrKeys, verifiers: Iterable[str]) -> None:
    """Check that a judge is named if one of the verifiers needs it, and that its server answers. Raises UsageError."""
    needed = sorted(set(verifiers) & set(registry.JUDGED))
    if not needed:
        return
    if keys.judge is None:
        raise UsageError(f"the verifier {needed[0]} needs a judge: set rlvr.judge: {{model: NAME, base_url: URL}}")
    from train_plugins.verifiers.judges import Judges

    judges = Judges(keys.judge)
    try:
        judges.check()
    finally:
        judges.close()


def row_reader(keys: RlvrKeys) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return a function that reads a row and checks what the recipe's rewards need of it.

    It raises ValueError for a row that cannot be trained on, UsageError for a name of a verifier that is none.
    """
    asks_rows = Rewards.of(keys).asks_rows

    def read(row: Mapping[str, Any]) -> dict[str, Any]:
        made = prompt_row(row, asks_rows)
        check_names(made["verifier"], keys.verifiers)
        check_row(with_truth(made, keys.verifiers), keys, table(keys.verifiers, names_in(made["verifier"])))
        return made

    return read


def _registered(name: str) -> str:
    return name if name == ROW else registry.check([name])[0]


def _sum(parts: Sequence[tuple[float, float | None]]) -> float | None:
    """Return the weighted sum; None if a value is missing."""
    values = [weight * value for weight, value in parts if value is not None]
    return sum(values) if len(values) == len(parts) else None


def _mean(parts: Sequence[tuple[float, float | None]]) -> float | None:
    """Return the weighted mean; None if a value is missing or all weights are 0."""
    whole, weights = _sum(parts), sum(weight for weight, _ in parts)
    return None if whole is None or weights <= 0 else whole / weights
