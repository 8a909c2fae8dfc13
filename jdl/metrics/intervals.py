"""Confidence intervals of metrics."""

import math
from statistics import NormalDist

from jdl.core.errors import error


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    r"""The Wilson score interval of a proportion, such as an accuracy, from $k$ successes in $n$.

    $\frac{\hat p + z^2/2n \pm z\sqrt{\hat p(1-\hat p)/n + z^2/4n^2}}{1 + z^2/n}$ with
    $\hat p = k/n$. Unlike $\hat p \pm z\,\mathrm{se}$ it stays within [0, 1] and is accurate near
    0 and 1. Raises `InputError` unless 0 <= successes <= n, n > 0 and 0 < level < 1.

    >>> low, high = wilson_interval(9912, 10000)
    >>> print(f"{low:.4f}-{high:.4f}")
    0.9892-0.9929

    Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not (n > 0 and 0 <= successes <= n and 0 < level < 1):
        raise error(
            "wilson_interval",
            expected="0 <= successes <= n, n > 0 and 0 < level < 1",
            got=f"{successes} of {n} at level {level}",
            fix="pass the number of correct examples and the number of all examples",
        )
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = successes / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
