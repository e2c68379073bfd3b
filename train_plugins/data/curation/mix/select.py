"""Which rows of the pool are in the mix, how often, in which order and file. Pure functions of content and seed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from olmes_suite.errors import DataError, UsageError
from olmes_suite.records import sha256
from olmes_suite.yaml_files import Place
from train_plugins.data.curation.mix.keys import Mix, Source
from train_plugins.data.curation.mix.pool import KEPT, NOT_SAMPLED, REASONS, Pool

MOST = 10**9
"""Rows that a source may have in the mix, with its repetitions."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The rows of the mix, in the order in which they are written."""

    position: NDArray[np.int64]
    """Position in the pool."""
    copy: NDArray[np.int32]
    """0, or the number of the repetition of a row."""
    held_out: NDArray[np.bool_]
    """Whether the row belongs to the file held_out."""

    def __len__(self) -> int:
        return len(self.position)


def choose(pool: Pool, mix: Mix, place: Place) -> Chosen:
    """Choose the rows and mark those that are not sampled in the pool.

    Raises UsageError where a source has too few rows and may not repeat them, DataError where none is left to train on.
    """
    positions, copies = [], []
    shares = _shares(mix)
    for number, source in enumerate(mix.sources):
        where = place.inside("sources", number, named=f"source {pool.names[number]!r}")
        part = pool.of_source(number)
        kept = np.flatnonzero(pool.state[part] == KEPT) + part.start
        wanted = _wanted(source, len(kept), shares[number])
        _check(wanted, len(kept), source, pool.state[part], where)
        ordered = kept[np.argsort(_ranks(pool, kept, mix.seed, pool.names[number]), kind="stable")]
        left_out = ordered[wanted:]
        pool.state[left_out] = NOT_SAMPLED
        repeated = np.arange(wanted) // max(len(ordered), 1)
        place_of = np.arange(wanted) % max(len(ordered), 1)
        order = np.lexsort((repeated, ordered[place_of]))
        positions.append(ordered[place_of][order])
        copies.append(repeated[order].astype(np.int32))
    position, copy = np.concatenate(positions), np.concatenate(copies)
    if not len(position):
        raise DataError(f"{place}: no row is left: {_lost(pool) or 'every row is rejected'}")
    if mix.shuffle:
        ranks = _mixed(pool.digest[position, 0] ^ _number(f"order {mix.seed}"), position, copy)
        order = np.argsort(ranks, kind="stable")
        position, copy = position[order], copy[order]
    held_out = pool.prompt[position] / 2.0**64 < mix.held_out
    if held_out.all():
        where, rows = place.line(("held_out",)), _all_of(len(position))
        raise DataError(f"{where}: held_out {mix.held_out:g} leaves no row to train on: {rows} held out")
    return Chosen(position, copy, np.asarray(held_out, np.bool_))


def _all_of(rows: int) -> str:
    return "the only one is" if rows == 1 else f"all {rows:,} are"


def _lost(pool: Pool) -> str:
    """Return how many rows were left out for which reason, the most frequent first."""
    lost = Counter(reason for part in pool.parts for _, reason, _ in part.rejected())
    lost.update({name: int((pool.state == code).sum()) for code, name in enumerate(REASONS) if name})
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in lost.most_common() if count)


def check_early(mix: Mix, rows: Sequence[int], names: Sequence[str], place: Place) -> None:
    """Raise UsageError for a source that has fewer rows than asked for even before duplicates are removed."""
    for number, (source, count, share) in enumerate(zip(mix.sources, rows, _shares(mix), strict=True)):
        wanted = _wanted(source, count, share)
        if wanted > count and not source.upsample:
            where = place.inside("sources", number, named=f"source {names[number]!r}")
            raise UsageError(_too_few(wanted, f"{count:,}", where))


def _wanted(source: Source, available: int, share: int) -> int:
    if source.amount is not None:
        return source.amount
    if source.fraction is not None:
        return round(source.fraction * available)
    return share if source.share is not None else available


def _shares(mix: Mix) -> list[int]:
    """Return the rows of each source's share of `rows`; they add up to that of all shares (largest remainders)."""
    exact = [(source.share or 0) * (mix.rows or 0) for source in mix.sources]
    rows = [math.floor(one + 1e-9) for one in exact]
    order = sorted(range(len(exact)), key=lambda number: (rows[number] - exact[number], number))
    for number in order[: math.floor(sum(exact) + 0.5) - sum(rows)]:
        rows[number] += 1
    return rows


def _check(wanted: int, available: int, source: Source, state: NDArray[np.int8], place: Place) -> None:
    if wanted > MOST:
        raise UsageError(f"{place.line(())}: asks for {wanted:,} rows; a source may have {MOST:,} at most")
    if wanted <= available or (source.upsample and available):
        return
    reasons = [f"{int((state == code).sum()):,} {name.replace('_', ' ')}" for code, name in enumerate(REASONS) if name]
    lost = ", ".join(reason for reason in reasons if not reason.startswith("0 "))
    have = f"{available:,}" + (f" ({len(state):,} without {lost})" if lost else "")
    raise UsageError(_too_few(wanted, have, place) if available else f"{place.line(())}: no row is left ({have})")


def _too_few(wanted: int, have: str, place: Place) -> str:
    return (
        f"{place.line(())}: asks for {wanted:,} rows, but has {have}; ask for fewer, or set `upsample: true` to repeat "
        "rows"
    )


def _ranks(pool: Pool, kept: NDArray[np.int64], seed: int, name: str) -> NDArray[np.uint64]:
    """Give each row a number that depends on its text, the seed and the source only."""
    return _mixed(pool.digest[kept, 0] ^ _number(f"sample {seed} {name}"), pool.number[kept])


def _number(text: str) -> np.uint64:
    return np.uint64(int(sha256(text)[:16], 16))


def _mixed(values: NDArray[np.uint64], *others: NDArray[np.int64] | NDArray[np.int32]) -> NDArray[np.uint64]:
    """Mix bits (the finaliser of SplitMix64, Steele, Lea & Flood 2014)."""
    mixed = values.astype(np.uint64)
    for other in (np.zeros(1, np.int64), *others):
        mixed = mixed + other.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return mixed
