"""How far two computations of the same quantity in float32 may lie apart, whatever the processor.

Between two processors, numbers of threads, batch sizes or numbers of processes, the same terms are added in different
orders. A sum of n terms with unit roundoff u = eps / 2 is off by at most (n - 1) u Σ|t|, for every order (Higham,
Accuracy and Stability of Numerical Algorithms, 2nd ed., §4.2), so that two of them differ by less than n eps Σ|t|.

A weight's gradient is a sum over the tokens of a batch. Each of its terms went through sums itself, forward and back;
the longest of those in our models has one term for each word of the vocabulary, and errors in a row add up to first
order. Hence the limit (tokens + vocabulary) eps, relative to the largest gradient. For 250 tokens it is 8e-5. A token
that is left out, counted twice or weighted wrongly changes a gradient by about 1 / 250, fifty times as much.
"""

from __future__ import annotations

EPS = 2.0**-23
"""Of float32: the distance from 1 to the next number."""
VOCABULARY = 400
"""Tokens of the tiny models, see models_fixture."""


def sum_limit(terms: int) -> float:
    """The relative difference that two sums of so many terms may have, by the order of their terms alone."""
    return terms * EPS


def gradient_limit(tokens: int) -> float:
    """The same of gradients, and of losses, over a batch of so many tokens."""
    return sum_limit(tokens + VOCABULARY)
