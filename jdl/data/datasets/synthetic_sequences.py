"""Synthetic sequences that test the memory of a network; the best possible loss is known."""

from collections.abc import Sequence

import numpy as np

from jdl.core.errors import check_range, error
from jdl.data.records import Arrays

ADDING_BASELINE = 1 / 6
"""Mean squared error of always predicting 1: the variance of a sum of two uniform numbers."""


def adding_problem(n: int, steps: int, seed: int = 0) -> Arrays:
    """The adding problem (Hochreiter and Schmidhuber 1997): add the two marked numbers.

    `x` is float32 (n, steps, 2): numbers uniform in [0, 1), and marks, one in each half of the
    sequence. `y` float32 (n, 1) is the sum of the marked numbers. Without memory the best
    prediction is 1, with a mean squared error of 1/6. Raises `InputError` for fewer than 2 steps.

    >>> batch = adding_problem(2, 10)
    >>> bool(np.allclose((batch["x"][..., 0] * batch["x"][..., 1]).sum(1), batch["y"][:, 0]))
    True
    """
    check_range("steps", steps, 2)
    rng = np.random.default_rng(seed)
    values = rng.random((n, steps), np.float32)
    marks = np.zeros((n, steps), np.float32)
    half = steps // 2
    for place in (rng.integers(0, half, n), rng.integers(half, steps, n)):
        marks[np.arange(n), place] = 1
    return {"x": np.stack([values, marks], -1), "y": (values * marks).sum(1, keepdims=True)}


def copy_problem(n: int, delay: int, symbols: int = 8, length: int = 10, seed: int = 0) -> Arrays:
    r"""The copy problem: repeat the symbols seen `delay` steps ago (Arjovsky et al. 2016).

    `x` is int32 (n, delay + 2 length): L = `length` random symbols 1 ... K, `delay` - 1 blanks (0),
    a start sign (K + 1), and blanks. `y`, of the same shape, is blank except for the symbols at the
    end. Without memory the best mean cross-entropy is $L \ln K / (\text{delay} + 2L)$ nats
    (`copy_problem_baseline`). Raises `InputError` for a delay below 1.

    >>> batch = copy_problem(1, delay=3, length=2)
    >>> bool((batch["y"][0, -2:] == batch["x"][0, :2]).all()), batch["x"].shape
    (True, (1, 7))
    """
    check_range("delay", delay, 1)
    sequence = np.random.default_rng(seed).integers(1, symbols + 1, (n, length))
    x = np.zeros((n, delay + 2 * length), np.int32)
    y = np.zeros_like(x)
    x[:, :length], y[:, -length:] = sequence, sequence
    x[:, length + delay - 1] = symbols + 1
    return {"x": x, "y": y}


def copy_problem_baseline(delay: int, symbols: int = 8, length: int = 10) -> float:
    """Mean cross-entropy in nats of a model without memory, which only knows when to answer.

    >>> round(copy_problem_baseline(100), 4)
    0.1733
    """
    return float(length * np.log(symbols) / (delay + 2 * length))


def autoregressive(
    n: int,
    steps: int,
    lags: Sequence[int] = (1, 12),
    noise: Sequence[float] = (0.7, 0.1, 0.1, 0.1),
    seed: int = 0,
) -> Arrays:
    r"""Symbols that depend on earlier ones: $s_t = \sum_i s_{t-l_i} + e_t \bmod K$.

    $e_t$ is drawn from the distribution `noise` over the K symbols. So the best cross-entropy is
    `entropy(noise)` for a model that sees all lags $l_i$, and $\ln K$ nats if it misses one. `x`
    and `y` are int32 (n, steps), and y is x one step later. The random symbols before the longest
    lag are not part of x. Raises `InputError` for a lag below 1, and for a distribution that does
    not sum to 1.

    >>> batch = autoregressive(1, 8, lags=(1,), noise=(1.0, 0.0))
    >>> bool((batch["x"] == batch["y"]).all())
    True
    """
    check_range("the smallest lag", min(lags), 1)
    probabilities = np.asarray(noise, np.float64)
    if not (np.isclose(probabilities.sum(), 1) and (probabilities >= 0).all()):
        raise error(
            "noise",
            expected="probabilities that sum to 1",
            got=str(tuple(noise)),
            fix="divide them by their sum",
        )
    rng, symbols, first = np.random.default_rng(seed), len(probabilities), max(lags)
    series = np.zeros((n, first + steps + 1), np.int32)
    series[:, :first] = rng.integers(0, symbols, (n, first))
    errors = rng.choice(symbols, series.shape, p=probabilities)
    for t in range(first, series.shape[1]):
        series[:, t] = (sum(series[:, t - lag] for lag in lags) + errors[:, t]) % symbols
    return {"x": series[:, first:-1], "y": series[:, first + 1 :]}


def peaked_distribution(certainty: float, symbols: int = 4) -> tuple[float, ...]:
    """A distribution for `autoregressive`: `certainty` for 0, and equal shares for the others.

    >>> peaked_distribution(0.7, 3)
    (0.7, 0.15000000000000002, 0.15000000000000002)
    """
    return (certainty, *[(1 - certainty) / (symbols - 1)] * (symbols - 1))


def entropy(chances: Sequence[float]) -> float:
    r"""Entropy of a distribution in nats, $-\sum_k p_k \ln p_k$.

    >>> round(entropy((0.7, 0.1, 0.1, 0.1)), 4)
    0.9404
    """
    positive = np.asarray([p for p in chances if p > 0], np.float64)
    return float(-(positive * np.log(positive)).sum())
