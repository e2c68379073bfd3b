"""Near duplicates among 20,000 texts: time and recall of datasketch and rensa, against the similarity of all pairs.

    python benchmarks/near_duplicates.py [--rows 20000] [--data FILE.parquet --column instruction]

A quarter of the texts are copies with some words changed. Brute force computes the Jaccard similarity of the word
5-grams of every pair. Reported for each library, with the same 128 permutations: seconds, the share of pairs from 0.8
that become candidates, and how many candidates are below.
"""

from __future__ import annotations

import argparse
import random
import resource
import time
from pathlib import Path

import numpy as np

from train_plugins.data.curation.duplicates import NearDuplicates, _shared_buckets, rows_and_bands, shingles

THRESHOLD, SHINGLE = 0.8, 5


def texts_of(rows: int, seed: int = 0) -> list[str]:
    """Texts of 30 to 200 words of a Zipfian vocabulary; a quarter are copies with up to 12 % of their words changed."""
    rng = random.Random(seed)
    words = [f"w{number}" for number in range(20_000)]
    weights = [1 / (number + 10) for number in range(20_000)]
    texts = [" ".join(rng.choices(words, weights, k=rng.randint(30, 200))) for _ in range(rows - rows // 4)]
    for _ in range(rows // 4):
        copy = rng.choice(texts).split()
        for _ in range(rng.randint(1, max(1, len(copy) * 12 // 100))):
            copy[rng.randrange(len(copy))] = rng.choice(words)
        texts.append(" ".join(copy))
    rng.shuffle(texts)
    return texts


def brute_force(sets: list[frozenset[str]]) -> dict[tuple[int, int], float]:
    """The pairs whose similarity is at least 0.5, by multiplying the matrix of texts and n-grams with itself."""
    from scipy.sparse import csr_matrix

    number: dict[str, int] = {}
    columns = [number.setdefault(gram, len(number)) for grams in sets for gram in sorted(grams)]
    starts = np.concatenate([[0], np.cumsum([len(grams) for grams in sets])])
    matrix = csr_matrix((np.ones(len(columns), dtype=np.int32), columns, starts), shape=(len(sets), len(number)))
    sizes = np.diff(starts)
    found = {}
    for first in range(0, len(sets), 2000):
        common = (matrix[first : first + 2000] @ matrix.T).tocoo()
        one, other = common.row + first, common.col
        similarity = common.data / (sizes[one] + sizes[other] - common.data)
        for i in np.flatnonzero((one < other) & (similarity >= 0.5)):
            found[int(one[i]), int(other[i])] = float(similarity[i])
    return found


def repeated(truth: dict[tuple[int, int], float], rows: int) -> set[int]:
    """The texts that repeat an earlier one that is kept, which a complete search drops."""
    earlier: dict[int, list[int]] = {}
    for (one, other), similarity in truth.items():
        if similarity >= THRESHOLD:
            earlier.setdefault(other, []).append(one)
    dropped: set[int] = set()
    for row in range(rows):
        if any(one not in dropped for one in earlier.get(row, ())):
            dropped.add(row)
    return dropped


def by_datasketch(sets: list[frozenset[str]]) -> set[tuple[int, int]]:
    """Candidates of datasketch's MinHashLSH with its own choice of bands."""
    from datasketch import MinHash, MinHashLSH

    index, pairs = MinHashLSH(threshold=THRESHOLD, num_perm=128), set()
    hashes = MinHash.generator([[gram.encode() for gram in grams] for grams in sets], num_perm=128)
    for number, one in enumerate(hashes):
        pairs |= {(int(earlier), number) for earlier in index.query(one)}
        index.insert(number, one)
    return pairs


def by_rensa(sets: list[frozenset[str]], bands: int) -> set[tuple[int, int]]:
    """Candidates of rensa's RMinHashLSH."""
    from rensa import RMinHash, RMinHashLSH

    index, pairs = RMinHashLSH(threshold=THRESHOLD, num_perm=128, num_bands=bands), set()
    for number, grams in enumerate(sets):
        one = RMinHash(num_perm=128, seed=0)
        one.update(list(grams))
        pairs |= {(earlier, number) for earlier in index.query(one)}
        index.insert(number, one)
    return pairs


def by_ours(texts: list[str]) -> set[tuple[int, int]]:
    """Candidates of our bands over rensa's sketches, before they are verified."""
    near = NearDuplicates(THRESHOLD, SHINGLE)
    near.add(texts)
    buckets: dict[int, list[int]] = {}
    for row, shared in _shared_buckets(np.concatenate(near._parts), *rows_and_bands(THRESHOLD)):
        for bucket in shared:
            buckets.setdefault(bucket, []).append(row)
    return {(a, b) for rows in buckets.values() for i, a in enumerate(rows) for b in rows[i + 1 :]}


def report(name: str, seconds: float, pairs: set[tuple[int, int]], truth: dict[tuple[int, int], float]) -> None:
    """Print one line."""
    alike = {pair for pair, similarity in truth.items() if similarity >= THRESHOLD}
    recall = len(pairs & alike) / max(1, len(alike))
    print(f"{name:<34}{seconds:7.2f} s   recall {100 * recall:6.2f} %   below 0.8: {len(pairs - alike):7,}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--column", default="instruction")
    chosen = parser.parse_args()
    if chosen.data:
        import pyarrow.parquet as pq

        texts = [str(one) for one in pq.read_table(chosen.data)[chosen.column].to_pylist()[: chosen.rows]]
    else:
        texts = texts_of(chosen.rows)
    sets = [shingles(text, SHINGLE) for text in texts]
    started = time.process_time()
    truth = brute_force(sets)
    alike = sum(similarity >= THRESHOLD for similarity in truth.values())
    print(f"{len(texts):,} texts; brute force {time.process_time() - started:.1f} s, {alike:,} pairs from {THRESHOLD}")
    runs = {
        "datasketch": lambda: by_datasketch(sets),
        "rensa, 16 bands": lambda: by_rensa(sets, 16),
        "rensa, 32 bands": lambda: by_rensa(sets, 32),
        "rensa's sketches in our bands": lambda: by_ours(texts),
    }
    for name, run in runs.items():
        started = time.process_time()
        try:
            pairs = run()
        except ModuleNotFoundError as error:
            print(f"{name}: not measured ({error})")
            continue
        report(name, time.process_time() - started, pairs, truth)
    started = time.process_time()
    near = NearDuplicates(THRESHOLD, SHINGLE)
    near.add(texts)
    found = near.find(texts.__getitem__)
    seconds, must = time.process_time() - started, repeated(truth, len(texts))
    merged = sum(truth.get((one.of, row), 0.0) < THRESHOLD for row, one in found.items())
    recall = 100 * len(must & set(found)) / max(1, len(must))
    print(f"{'verified (what is used)':<34}{seconds:7.2f} s   recall {recall:6.2f} %   false merges: {merged}")
    print(f"texts that repeat an earlier one which is kept: {len(must):,}; dropped: {len(found):,}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB, brute force included")


if __name__ == "__main__":
    main()
