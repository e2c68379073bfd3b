"""Time of verdicts on programs that read stdin, with ten tests each.

    python benchmarks/stdin_programs.py [--verdicts 1000] [--workers 2]

Every fourth program is wrong in its last test; the others pass all tests.
"""

from __future__ import annotations

import argparse
import time

from train_plugins.verifiers import Call, Verifiers

PROGRAM = """```python
import sys
from collections import Counter
from heapq import heapify, heappop

def solve(numbers):
    heapify(numbers)
    return [heappop(numbers) for _ in range(len(numbers))]

data = sys.stdin.read().split()
count = int(data[0])
numbers = list(map(int, data[1:count + 1]))
most = Counter(numbers).most_common(1)[0][0]
print(*solve(numbers))
print(most{wrong})
```"""


def call(number: int) -> Call:
    """Return the verdict to give for the program with this number."""
    cases = []
    for test in range(10):
        numbers = [(number * 7 + test * place) % 100 for place in range(200)] + [test, test, test]
        most = max(dict.fromkeys(numbers), key=numbers.count)
        wanted = f"{' '.join(map(str, sorted(numbers)))}\n{most}\n"
        cases.append({"input": f"{len(numbers)}\n{' '.join(map(str, numbers))}\n", "output": wanted})
    if number % 4 == 3:
        cases[-1]["output"] = "0"
    return Call("code_stdio", PROGRAM.replace("{wrong}", f" + 0 * {number}"), cases, {"row": number})


def main() -> None:
    """Print the time and the number of verdicts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verdicts", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    calls = [call(number) for number in range(given.verdicts)]
    with Verifiers(["code_stdio"], given.workers, 10.0) as verifiers:
        verifiers.verify(calls[:1])
        started = time.monotonic()
        found = verifiers.verify(calls)
        seconds = time.monotonic() - started
    right = sum(value == 1 for value in found)
    print(f"{len(calls)} verdicts of 10 tests in {seconds:.1f} s, {right} right, {verifiers.timeouts} out of time")


if __name__ == "__main__":
    main()
