"""The order: a bijection, uniform, the same in numpy and jax.numpy, and free to seek."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jdl.core.errors import InputError
from jdl.data.order import Order, permute


def is_permutation(values: np.ndarray, n: int) -> bool:
    return np.array_equal(np.sort(values), np.arange(n))


def test_bijection_for_every_n_up_to_2000():
    for n in range(1, 2001):
        assert is_permutation(Order(n, seed=n).permutation(n % 7), n), n


@pytest.mark.parametrize("n", [60_000, 2**16, 2**16 + 1])
def test_bijection_for_a_large_set(n):
    order = Order(n, seed=1)
    first, second = order.permutation(0), order.permutation(1)
    assert is_permutation(first, n)
    assert is_permutation(second, n)
    assert (first != second).any()


@pytest.mark.parametrize("n", [2, 3, 5, 10, 100, 1797])
def test_batches_walk_through_epochs(n):
    order, size = Order(n, seed=3), min(n, 7)
    steps = -(-3 * n // size)
    flat = np.concatenate([order(s, size, np) for s in range(steps)])
    expected = np.concatenate([order.permutation(e) for e in range(4)])
    assert np.array_equal(flat, expected[: len(flat)])


def position_table(n: int, epochs: int, rounds: int) -> np.ndarray:
    """How often example i came to position j."""
    keys = np.arange(epochs, dtype=np.uint32)
    columns = [
        permute(np.full(epochs, i, np.uint32), keys, n, seed=5, xp=np, rounds=rounds)
        for i in range(n)
    ]
    return np.stack([np.bincount(column, minlength=n) for column in columns])


def uniformity(table: np.ndarray, epochs: int) -> float:
    n = len(table)
    expected = epochs / n
    return float(stats.chi2.sf(((table - expected) ** 2 / expected).sum(), (n - 1) ** 2))


@pytest.mark.parametrize("n", [3, 5, 10, 17])
def test_uniform_over_positions(n):
    assert uniformity(position_table(n, 200_000, rounds=8), 200_000) > 1e-3


def test_too_few_rounds_fail_the_same_test():
    assert uniformity(position_table(10, 200_000, rounds=2), 200_000) < 1e-6


def test_pairs_are_uniform():
    n, epochs = 10, 200_000
    keys = np.arange(epochs, dtype=np.uint32)
    first, second = (
        permute(np.full(epochs, i, np.uint32), keys, n, seed=2, xp=np).astype(np.int64)
        for i in (0, 1)
    )
    counts = np.bincount(first * n + second, minlength=n * n).reshape(n, n)
    assert (np.diag(counts) == 0).all()
    expected = epochs / (n * (n - 1))
    square = ((counts[~np.eye(n, dtype=bool)] - expected) ** 2 / expected).sum()
    assert stats.chi2.sf(square, n * (n - 1) - 1) > 1e-3


@pytest.mark.parametrize(("n", "size"), [(1, 1), (2, 1), (10, 10), (64, 32), (1257, 128)])
@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_numpy_and_jax_agree(n, size, seed):
    order = Order(n, seed)
    compiled = jax.jit(lambda step: order(step, size))
    for step in (0, 1, 2, 9, 10, 12345, 2**31 - 1):
        expected = order(step, size, np)
        assert np.array_equal(np.asarray(compiled(step)), expected)
        assert expected.dtype == np.int32
    assert compiled(0).dtype == jnp.int32


def test_whole_mnist_epoch_agrees():
    order = Order(60_000, 4)
    compiled = jax.jit(jax.vmap(lambda step: order(step, 600)))
    batches = np.asarray(compiled(jnp.arange(100, 200, dtype=jnp.int32)))
    assert np.array_equal(batches.ravel(), order.permutation(1))


def exact(order: Order, step: int, size: int) -> list[int]:
    """The definition in integers without limits."""
    numbers = [step * size + j for j in range(size)]
    return [int(order.permutation((m // order.n) % 2**32)[m % order.n]) for m in numbers]


@pytest.mark.parametrize("step", [2**31 - 1, 2**31 - 2, 2**30 + 12345])
def test_huge_steps_do_not_overflow(step):
    order = Order(1797, 1)
    assert order(step, 128, np).tolist() == exact(order, step, 128)
    assert step * 128 > 2**32  # the plain product would not fit


def test_inside_a_loop_and_under_vmap():
    order = Order(100, 0)

    def body(i, total):
        return total + order(i, 8).sum()

    total = jax.jit(lambda: jax.lax.fori_loop(0, 25, body, jnp.int32(0)))()
    assert int(total) == 2 * sum(range(100))


def test_the_order_never_changes():
    """A resumed run relies on these numbers, whatever the version of jdl, numpy or jax."""
    assert Order(10, 0).permutation(0).tolist() == [5, 8, 4, 3, 2, 7, 0, 6, 9, 1]
    assert Order(60_000, 7).permutation(3)[:4].tolist() == [50917, 54799, 58739, 7945]
    assert Order(1797, 2**32 - 1)(2**31 - 1, 4).tolist() == [256, 448, 1018, 199]


def test_seeds_and_sizes_give_other_orders():
    a = Order(1000, 0).permutation(0)
    assert (a == Order(1000, 1).permutation(0)).mean() < 0.02
    b = Order(1001, 0).permutation(0)
    assert (a == b[:1000]).mean() < 0.02


def test_no_warning_and_no_change_under_x64(x64):
    order = Order(100, 7)
    assert np.array_equal(np.asarray(order(jnp.int32(33), 16)), order(33, 16, np))
    assert order(33, 16).dtype == jnp.int32


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Order(0), ["n of a data order", "from 1 to 2147483647", "got:      0"]),
        (lambda: Order(5, seed=-1), ["seed of a data order", "from 0 to 4294967295"]),
        (lambda: Order(2**20)(0, 2**12), ["batch_size", "from 1 to 4095", "4096"]),
        (lambda: Order(10)(0, 0), ["batch_size", "got:      0"]),
        (lambda: Order(10)(-1, 2), ["step of a data order", "got:      -1"]),
        (lambda: Order(10)(2**31, 2, np), ["step of a data order", "2147483648"]),
    ],
)
def test_errors(make, words):
    with pytest.raises(InputError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
