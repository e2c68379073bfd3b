"""Numbers about the rows of a mix, for its card and its manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train_plugins.data.curation.mix.decontaminate import Found
from train_plugins.data.curation.mix.keys import UNKNOWN, Mix
from train_plugins.data.curation.mix.parts import Part
from train_plugins.data.curation.mix.pool import REASONS, Pool, rejected_rows
from train_plugins.data.curation.mix.select import Chosen

_QUANTILES = (0, 10, 25, 50, 75, 90, 99, 100)


def of(
    mix: Mix, pool: Pool, parts: Sequence[Sequence[Part]], chosen: Chosen, found: Found | None
) -> dict[str, Any]:  # fmt: skip
    """Count what the mix holds and what was left out."""
    sources = [_source(number, mix, pool, one, chosen) for number, one in enumerate(parts)]
    tokens, turns = pool.tokens[chosen.position], pool.turns[chosen.position]
    return {
        "kind": mix.kind, "rows": len(chosen), "held_out": int(chosen.held_out.sum()),
        "tokens": int(tokens.sum(dtype=np.int64)), "tokens_by": mix.tokenizer or "estimate (4 bytes each)",
        "row_tokens": _spread(tokens), "row_turns": _spread(turns),
        "token_histogram": _histogram(tokens), "turn_histogram": _counts(turns),
        "thoughts": _share(pool.thoughts[chosen.position]), "tools": _share(pool.tools[chosen.position]),
        "skills": _grouped(sources, "skill"), "licences": _grouped(sources, "licence"),
        "sources": sources, "duplicates_across": _across(pool),
        "decontamination": None if found is None else found.as_data(),
    }  # fmt: skip


def _source(number: int, mix: Mix, pool: Pool, parts: Sequence[Part], chosen: Chosen) -> dict[str, Any]:
    keys, rows = mix.sources[number], pool.of_source(number)
    mine = pool.source[chosen.position] == number
    positions = chosen.position[mine]
    rejected = Counter(reason for _, reason, _ in rejected_rows(parts))
    states = np.bincount(pool.state[rows], minlength=len(REASONS)).tolist()
    rejected.update({name: count for name, count in zip(REASONS, states, strict=True) if name and count})
    return {
        "source": pool.names[number], "from": keys.place, "licence": keys.known_licence or UNKNOWN,
        "skill": keys.skill or UNKNOWN, **({"about": keys.about} if keys.about else {}),
        "read": sum(part.rows for part in parts), "rejected": dict(sorted(rejected.items())), "rows": len(positions),
        "repeated": int((chosen.copy[mine] > 0).sum()), "held_out": int(chosen.held_out[mine].sum()),
        "tokens": int(pool.tokens[positions].sum(dtype=np.int64)),
        "mean_turns": round(float(pool.turns[positions].mean()), 2) if len(positions) else 0.0,
        "thoughts": _share(pool.thoughts[positions]), "tools": _share(pool.tools[positions]),
    }  # fmt: skip


def _grouped(sources: Sequence[Mapping[str, Any]], key: str) -> dict[str, dict[str, int]]:
    """Sum rows and tokens by a key of the sources, the largest first."""
    found: dict[str, dict[str, int]] = {}
    for one in sources:
        entry = found.setdefault(one[key], {"rows": 0, "tokens": 0})
        entry["rows"] += one["rows"]
        entry["tokens"] += one["tokens"]
    return dict(sorted(found.items(), key=lambda pair: (-pair[1]["rows"], pair[0])))


def _across(pool: Pool) -> list[dict[str, Any]]:
    """Count the duplicates by their source and that of the row that is kept."""
    pairs = np.flatnonzero(pool.other >= 0)
    counts = Counter(zip(pool.source[pairs].tolist(), pool.source[pool.other[pairs]].tolist(), strict=True))
    return [
        {"source": pool.names[one], "of": pool.names[other], "rows": count}
        for (one, other), count in sorted(counts.items())
    ]


def _share(marks: NDArray[np.bool_]) -> float:
    return round(float(marks.mean()), 6) if len(marks) else 0.0


def _spread(values: NDArray[np.int32]) -> dict[str, float]:
    """Return the mean and quantiles of a number of each row."""
    if not len(values):
        return {}
    points = np.percentile(values, _QUANTILES, method="inverted_cdf").tolist()
    named = {f"p{q}": int(point) for q, point in zip(_QUANTILES, points, strict=True)}
    return {"mean": round(float(values.mean()), 2), **named}


def _histogram(values: NDArray[np.int32]) -> list[dict[str, int]]:
    """Count rows by length, in bins whose borders are powers of 2."""
    if not len(values):
        return []
    powers = np.ceil(np.log2(np.maximum(values, 1))).astype(int)
    counts = np.bincount(powers)
    return [{"up_to": 2**power, "rows": int(count)} for power, count in enumerate(counts) if power >= powers.min()]


def _counts(values: NDArray[np.int32]) -> list[dict[str, int]]:
    """Count rows by their number of turns; those of 20 and more together."""
    counts: list[int] = np.bincount(np.minimum(values, 20)).tolist() if len(values) else []
    return [{"turns": turns, "rows": int(count)} for turns, count in enumerate(counts) if count]
