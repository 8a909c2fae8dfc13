"""The order of the training examples, as a function of the step.

Example j of step s has position s * B + j in an endless sequence. Its epoch is position // n, and
the order within an epoch is a keyed permutation of 0 ... n - 1 that is computed and never stored.
So you can ask for any step at any time, on the host or inside a compiled program.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl.core.errors import error

ROUNDS = 8
"""With six rounds a chi-square test finds a bias at n = 10; with eight it does not."""

SMALLEST_BITS = 6
"""With fewer bits the halves are so small that eight rounds are biased too (n = 5, n = 10)."""

_GOLDEN = 0x9E3779B9


@dataclass(frozen=True)
class Order:
    r"""An endless shuffle of `n` examples, with a new permutation for every epoch.

    With $m = sB + j$, example j of step s is $\pi_{\lfloor m / n \rfloor}(m \bmod n)$, where
    $\pi_e$ is a permutation keyed by the seed, n and the epoch e: a Feistel network over the
    smallest power of two, at least 64, that holds n, applied again until the value is below n
    (cycle walking; Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Batches are
    always full and may cross the end of an epoch. numpy and jax.numpy give the same integers.

    Raises `InputError` unless 1 <= n < 2**31, 0 <= seed < 2**32 and n * batch_size < 2**32.

    >>> order = Order(5, seed=0)
    >>> sorted(order.permutation(epoch=3).tolist())
    [0, 1, 2, 3, 4]
    >>> order(7, 4, xp=np).shape, bool((order(7, 4, xp=np) == order(7, 4)).all())
    ((4,), True)
    """

    n: int
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, low, stop in (("n", self.n, 1, 2**31), ("seed", self.seed, 0, 2**32)):
            if not (isinstance(value, Integral) and low <= value < stop):
                raise error(
                    f"{name} of a data order",
                    expected=f"an integer from {low} to {stop - 1}",
                    got=repr(value),
                    fix="pass at least one example" if name == "n" else "choose another seed",
                )

    def __call__(self, step: Any, batch_size: int, xp: ModuleType = jnp) -> Any:
        """Indices of the examples of a step: int32 (batch_size,).

        `step` is an integer from 0 to 2**31 - 1 and may be traced. With steps of shape (k,) the
        result is (k, batch_size). `xp` is jax.numpy or numpy. Raises `InputError` for a step or a
        batch size out of range.
        """
        n, size = self.n, operator.index(batch_size)
        if size < 1 or n * size >= 2**32:
            raise error(
                "batch_size of a data order",
                expected=f"from 1 to {(2**32 - 1) // n} for {n} examples (n * batch_size < 2**32)",
                got=str(size),
                fix="choose a batch size in that range",
            )
        if isinstance(step, int | np.integer) and not 0 <= step < 2**31:
            raise error(
                "step of a data order",
                expected="an integer from 0 to 2147483647",
                got=str(step),
                fix="count steps from 0",
            )
        # With step = q * n + r every product stays below 2**32; step * batch_size would overflow.
        step = xp.asarray(step)
        step = xp.reshape(step, (*step.shape, 1)).astype(xp.uint32)
        q, r = step // np.uint32(n), step % np.uint32(n)
        position = r * np.uint32(size) + xp.arange(size, dtype=xp.uint32)
        epoch = q * np.uint32(size) + position // np.uint32(n)
        return permute(position % np.uint32(n), epoch, n, self.seed, xp)

    def permutation(self, epoch: int) -> np.ndarray:
        """The permutation of one epoch: int32 (n,)."""
        key = np.full(1, epoch, np.uint32)
        return permute(np.arange(self.n, dtype=np.uint32), key, self.n, self.seed, np)


def process_rows(places: Sequence[int], of: int, batch_size: int) -> np.ndarray:
    """Positions in a batch that a process feeds, given its parts: int64, sorted.

    The batch is cut into `of` equal parts, and `places` are the parts that belong to the process:
    `[i]` for process i of n, several if its devices hold several parts of the mesh's data axis.
    Raises `InputError` unless `of` divides the batch size.

    >>> process_rows([1], of=4, batch_size=8)
    array([2, 3])
    """
    if batch_size % of:
        raise error(
            "batch_size",
            expected=f"a multiple of {of}, the number of parts",
            got=str(batch_size),
            fix=f"use {max(of, batch_size - batch_size % of)}",
        )
    rows = np.arange(batch_size).reshape(of, -1)
    return rows[sorted(places)].reshape(-1)


def permute(index: Any, epoch: Any, n: int, seed: int, xp: ModuleType, rounds: int = ROUNDS) -> Any:
    """The permutation of 0 ... n - 1 of an epoch, applied to `index` elementwise: int32."""
    bits = max(SMALLEST_BITS, (n - 1).bit_length())
    if n == 1:
        return index.astype(xp.int32)
    key = _mix(epoch ^ _mix(np.full(1, seed, np.uint32) ^ _mix(np.full(1, n, np.uint32))))
    keys = [_mix(key + np.uint32((i + 1) * _GOLDEN % 2**32)) for i in range(rounds)]
    top = np.uint32((1 << (bits + 1) // 2) - 1)
    low_bits = np.uint32(bits // 2)
    low = np.uint32((1 << bits // 2) - 1)

    def feistel(value: Any, keys: Any) -> Any:
        left, right = value >> low_bits, value & low
        for i in range(0, rounds, 2):
            left = left ^ (_mix(right ^ keys[i]) & top)
            right = right ^ (_mix(left ^ keys[i + 1]) & low)
        return (left << low_bits) | right

    walked = feistel(index, keys)
    if n == 1 << bits:
        return walked.astype(xp.int32)
    if xp is np:
        while (outside := walked >= np.uint32(n)).any():
            outside_keys = [np.broadcast_to(key, walked.shape)[outside] for key in keys]
            walked[outside] = feistel(walked[outside], outside_keys)
        return walked.astype(np.int32)

    def walk(value: Any) -> Any:
        return jnp.where(value < np.uint32(n), value, feistel(value, keys))

    return jax.lax.while_loop(lambda v: jnp.any(v >= np.uint32(n)), walk, walked).astype(jnp.int32)


def _mix(x: Any) -> Any:
    """A bijection of uint32 in which every input bit affects every output bit (lowbias32)."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))
