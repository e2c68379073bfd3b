"""The arithmetic of RLVR against plain loops over lists."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from train_fixture import need_trl

need_trl()
torch = pytest.importorskip("torch")

from train_plugins.rl import advantages  # noqa: E402  (torch is an extra)


def batch(seed: int = 0, rows: int = 5, width: int = 9) -> tuple[Any, ...]:
    """(rewards, values, mask) with responses of 1 to `width` tokens."""
    draw = random.Random(seed)
    lengths = [1, width, *(draw.randint(1, width) for _ in range(rows - 2))]
    mask = torch.tensor([[float(t < length) for t in range(width)] for length in lengths])
    values, rewards = (torch.tensor([[draw.gauss(0, 3) for _ in range(width)] for _ in range(rows)]) for _ in range(2))
    return rewards, values, mask


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (1.0, 0.0)])
def test_gae_is_the_sum_of_discounted_errors(gamma: float, lam: float) -> None:
    rewards, values, mask = batch()
    found, returns = advantages.gae(rewards * mask, values * mask, mask, gamma, lam)
    for row in range(len(mask)):
        length = int(mask[row].sum())
        r, v = rewards[row, :length].tolist(), [*values[row, :length].tolist(), 0.0]
        errors = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(mask.size(1)):
            wanted = sum((gamma * lam) ** (k - t) * errors[k] for k in range(t, length)) if t < length else 0.0
            assert float(found[row, t]) == pytest.approx(wanted, rel=1e-5, abs=1e-5)
            assert float(returns[row, t]) == pytest.approx(wanted + (v[t] if t < length else 0), rel=1e-5, abs=1e-5)
    if (gamma, lam) == (1.0, 1.0):  # the whole reward to go
        assert float(returns[1, 3]) == pytest.approx(float(rewards[1, 3:].sum()), rel=1e-5)


def test_gae_agrees_with_double_precision_to_a_millionth() -> None:
    rewards, values, mask = (one.double() for one in batch(3, rows=4, width=30))
    exact, _ = advantages.gae(rewards * mask, values * mask, mask, 1.0, 0.95)
    found, _ = advantages.gae((rewards * mask).float(), (values * mask).float(), mask.float(), 1.0, 0.95)
    assert float((found - exact).abs().max() / exact.abs().max()) < 1e-6


def test_whitening_is_over_the_tokens_of_all_processes() -> None:
    _, values, mask = batch(1)
    kept = [float(value) for value, here in zip(values.flatten(), mask.flatten(), strict=True) if here]
    mean = sum(kept) / len(kept)
    spread = math.sqrt(sum((value - mean) ** 2 for value in kept) / len(kept))
    found = advantages.whiten(values, mask, lambda x: x)
    for value, here, one in zip(values.flatten(), mask.flatten(), found.flatten(), strict=True):
        assert float(one) == pytest.approx((float(value) - mean) / spread if here else 0.0, abs=1e-5)
    sums: list[list[Any]] = []  # of two processes, each with a part of the rows

    def note(turn: int) -> Any:
        return lambda x: (sums[turn].append(x), x)[1]

    halves = (slice(None, 2), slice(2, None))
    for turn, part in enumerate(halves):
        sums.append([])
        advantages.whiten(values[part], mask[part], note(turn))
    first = sums[0][0] + sums[1][0]
    middle = first[1] / first[0]
    second = sum((((values[part] - middle) * mask[part]) ** 2).sum() for part in halves)
    totals = iter([first, second] * 2)
    parts = [advantages.whiten(values[part], mask[part], lambda x: next(totals)) for part in halves]
    assert torch.allclose(torch.cat(parts), found, atol=1e-6)
    assert not advantages.whiten(values, torch.zeros_like(mask), lambda x: x).any()


def test_the_score_stands_on_the_last_token_and_the_kl_on_each() -> None:
    policy, reference, mask = batch(2)
    scores = torch.tensor([10.0, -10.0, 0.0, 5.0, 0.0])
    found = advantages.token_rewards(scores, policy, reference, mask, 0.05)
    for row in range(len(mask)):
        length = int(mask[row].sum())
        for t in range(mask.size(1)):
            wanted = -0.05 * float(policy[row, t] - reference[row, t]) if t < length else 0.0
            wanted += float(scores[row]) if t == length - 1 else 0.0
            assert float(found[row, t]) == pytest.approx(wanted, abs=1e-5)
    without = advantages.token_rewards(scores, policy, None, mask, 0.0)
    assert without.sum(dim=1).tolist() == scores.tolist() and (without != 0).sum() == 3
    empty = advantages.token_rewards(scores, policy, reference, torch.zeros_like(mask), 0.05)
    assert not empty.any()  # skipped rows


def test_no_end_of_text_replaces_the_reward() -> None:
    assert advantages.score(1.0, True, 10.0, -10.0) == 10.0
    assert advantages.score(0.5, True, 10.0, -10.0) == 5.0
    assert advantages.score(1.0, False, 10.0, -10.0) == -10.0  # not 0: it replaces
    assert advantages.score(0.0, False, 10.0, -10.0) == -10.0
    assert advantages.score(1.0, False, 10.0, None) == 10.0
    assert advantages.score(None, False, 10.0, -10.0) is None


def test_the_value_loss_is_the_larger_of_two_squares() -> None:
    returns, old, mask = batch(4)
    values = old + torch.linspace(-1, 1, old.numel()).view_as(old)
    found = advantages.value_errors(values, old, returns, mask, 0.2)
    for index in range(old.numel()):
        v, o, r = (float(one.flatten()[index]) for one in (values, old, returns))
        near = min(max(v, o - 0.2), o + 0.2)
        wanted = 0.5 * max((v - r) ** 2, (near - r) ** 2) * float(mask.flatten()[index])
        assert float(found.flatten()[index]) == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_groups_without_signal() -> None:
    nan = math.nan
    scores = torch.tensor([0.0, 0.0, 10.0, 0.0, 10.0, 10.0, nan, 10.0, nan, nan, -10.0, 10.0])
    assert advantages.without_signal(scores, 2) == pytest.approx(4 / 6)
    assert advantages.without_signal(scores[:6], 3) == 0.0


def test_kl_is_summed_over_a_response() -> None:
    policy, reference, mask = batch(5)
    found = advantages.kl(policy, reference, mask)
    for row in range(len(mask)):
        pairs = zip(policy[row].tolist(), reference[row].tolist(), mask[row].tolist(), strict=True)
        assert float(found[row]) == pytest.approx(sum(a - b for a, b, here in pairs if here), rel=1e-5)
