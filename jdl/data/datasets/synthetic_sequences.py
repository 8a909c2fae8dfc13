"""Made-up sequences that test what a network over time can do; the best possible loss is known."""

from collections.abc import Sequence

import numpy as np

from jdl.core.errors import check_range, error
from jdl.data.records import Arrays

ADDING_BASELINE = 1 / 6
"""The squared error of always answering 1: the variance of a sum of two uniform numbers."""


def adding_problem(n: int, steps: int, seed: int = 0) -> Arrays:
    """The adding problem (Hochreiter & Schmidhuber 1997): add the two marked numbers.

    x float32 [n, steps, 2]: numbers uniform in [0, 1), and marks, one in each half of the sequence.
    y float32 [n, 1], the sum of the marked numbers. Without memory the best answer is 1, with a
    squared error of 1/6.

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
    r"""The copy problem: repeat what was shown `delay` steps ago (Arjovsky et al. 2016).

    x int32 [n, delay + 2 length]: symbols 1 ... K at random, `delay` - 1 blanks (0), a sign to
    start (K + 1), blanks. y int32 of that shape: blanks, and the symbols again at the end. Without
    memory the best mean cross-entropy is $L \ln K / (\text{delay} + 2L)$ (`copy_problem_baseline`).

    >>> batch = copy_problem(1, delay=3, length=2)
    >>> bool((batch["y"][0, -2:] == batch["x"][0, :2]).all()), batch["x"].shape
    (True, (1, 7))
    """
    check_range("delay", delay, 1)
    shown = np.random.default_rng(seed).integers(1, symbols + 1, (n, length))
    x = np.zeros((n, delay + 2 * length), np.int32)
    y = np.zeros_like(x)
    x[:, :length], y[:, -length:] = shown, shown
    x[:, length + delay - 1] = symbols + 1
    return {"x": x, "y": y}


def copy_problem_baseline(delay: int, symbols: int = 8, length: int = 10) -> float:
    """The mean cross-entropy in nats of knowing when to answer, and not what.

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
    r"""Symbols that follow from earlier ones: $s_t = \sum_i s_{t-l_i} + e_t \bmod K$.

    $e_t$ is drawn from the distribution `noise` over the K symbols, so what remains unknown about
    a symbol when all before it are known is its entropy, `entropy(noise)`; who lacks one of the
    lags knows nothing at all, $\ln K$ nats. x and y int32 [n, steps]: y is x one step later.
    The first symbols, before the longest lag, are drawn at random and not part of x.

    >>> batch = autoregressive(1, 8, lags=(1,), noise=(1.0, 0.0))
    >>> bool((batch["x"] == batch["y"]).all())
    True
    """
    check_range("the smallest lag", min(lags), 1)
    chances = np.asarray(noise, np.float64)
    if not (np.isclose(chances.sum(), 1) and (chances >= 0).all()):
        raise error(
            "noise",
            expected="chances that sum to 1",
            got=str(tuple(noise)),
            fix="divide by the sum",
        )
    rng, symbols, first = np.random.default_rng(seed), len(chances), max(lags)
    made = np.zeros((n, first + steps + 1), np.int32)
    made[:, :first] = rng.integers(0, symbols, (n, first))
    drawn = rng.choice(symbols, made.shape, p=chances)
    for t in range(first, made.shape[1]):
        made[:, t] = (sum(made[:, t - lag] for lag in lags) + drawn[:, t]) % symbols
    return {"x": made[:, first:-1], "y": made[:, first + 1 :]}


def peaked_distribution(certainty: float, symbols: int = 4) -> tuple[float, ...]:
    """Chances for `autoregressive`: nothing is added with `certainty`, all else is equally likely.

    >>> peaked_distribution(0.7, 3)
    (0.7, 0.15000000000000002, 0.15000000000000002)
    """
    return (certainty, *[(1 - certainty) / (symbols - 1)] * (symbols - 1))


def entropy(chances: Sequence[float]) -> float:
    r"""$-\sum_k p_k \ln p_k$ in nats.

    >>> round(entropy((0.7, 0.1, 0.1, 0.1)), 4)
    0.9404
    """
    kept = np.asarray([p for p in chances if p > 0], np.float64)
    return float(-(kept * np.log(kept)).sum())
