"""Each primitive of the models beside the plain form of it: time of value and gradient.

What `jdl.models` computes is chosen by platform; the plain form is jax's or Flax's own, in one
piece. The difference is that of the gradients, as a share of the plain ones' norm.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from jdl.models import attending, convolution, layers, lstm, norms
from jdl.models.over_time import over_time

Form = Callable[..., Any]


class Case(NamedTuple):
    """One function twice, and what it is differentiated by."""

    name: str
    taken: Form
    plain: Form
    inputs: tuple[jax.Array, ...]


class Ready(NamedTuple):
    """A case whose forms are compiled: each gives the gradients."""

    name: str
    forms: tuple[Form, Form]
    inputs: tuple[jax.Array, ...]


class Point(NamedTuple):
    """Milliseconds of both forms, and how far apart their gradients are."""

    taken: float
    plain: float
    difference: float


def cases(small: bool = False) -> Iterator[Case]:
    """The primitives in bfloat16 at sizes that fill a device; or at small ones, in float32 too."""
    keys = map(jax.random.key, itertools.count())

    def draw(shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return jax.random.normal(next(keys), shape, dtype)

    n = 2 if small else 512
    for dtype in (jnp.float32, jnp.bfloat16) if small else (jnp.bfloat16,):
        kind = dtype.__name__
        image = draw((n, 28, 28, 32), dtype)
        yield Case(f"max pooling, {kind}", layers.max_pool, _max_pool, (image,))
        yield Case(f"average pooling, {kind}", layers.avg_pool, _avg_pool, (image,))
        plain = nn.GroupNorm(8, epsilon=1e-5, use_fast_variance=False)
        yield Case(f"group normalisation, {kind}", _normed(norms.GroupNorm(8)), _normed(plain),
                   (image,))  # fmt: skip
        kernel = draw((3, 3, 32, 64), dtype)
        yield Case(f"convolution, {kind}", _conv, _plain_conv, (image, kernel))
        code, kernel = draw((n, 7, 7, 64), dtype), draw((4, 4, 32, 64), dtype)
        yield Case(f"transposed convolution, {kind}", _transposed, _plain_transposed,
                   (code, kernel))  # fmt: skip
        x, weights = draw((n // 2, 128, 256), dtype), draw((256, 1024), dtype)
        yield Case(f"dense, {kind}", _dense(layers.Dense), _dense(nn.Dense), (x, weights))
        yield Case(f"GELU, {kind}", layers.gelu, partial(nn.gelu, approximate=False),
                   (draw((n, 128, 256), dtype),))  # fmt: skip
        x, weights = draw((64, 64, 128), dtype), 0.1 * draw((256, 512), dtype)
        yield Case(f"LSTM(128), 64 steps, {kind}", _lstm, _plain_lstm, (x, weights))
        for time_, heads, size in ((128, 4, 32), (256, 6, 64), (1024, 12, 64)):
            shape = (max(1, n // 16), time_, heads, size)
            qkv = (draw(shape, dtype), draw(shape, dtype), draw(shape, dtype))
            taken = partial(attending.attention, is_causal=True)
            plain = partial(attending._whole, True)
            name = f"causal attention, {heads} heads of {size}, {time_} tokens, {kind}"
            yield Case(name, taken, plain, qkv)


def ready(cases: Iterable[Case]) -> list[Ready]:
    """The cases with both forms compiled, side by side."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_compiled, cases))


def measured(case: Ready, seconds: float = 0.3) -> Point:
    """Both forms in turns: medians of their times, and their difference."""
    a, b = (run(*case.inputs) for run in case.forms)
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), (a, b))
    apart = optax.global_norm(jax.tree.map(jnp.subtract, *wide)) / optax.global_norm(wide[1])
    times: list[list[float]] = [[], []]
    end = time.perf_counter() + 2 * seconds
    while time.perf_counter() < end or len(times[0]) < 3:
        for run, spent in zip(case.forms, times, strict=True):
            begin = time.perf_counter()
            # Several at once, so that on a GPU the dispatch of one hides behind the one before.
            jax.block_until_ready([run(*case.inputs) for _ in range(8)])
            spent.append((time.perf_counter() - begin) / 8)
    taken, plain = (1e3 * statistics.median(spent) for spent in times)
    return Point(taken, plain, float(apart))


def table(found: dict[str, Point]) -> str:
    """A Markdown table of the cases."""
    lines = ["| primitive, value and gradient | taken, ms | plain, ms | taken / plain | gradients "
             "differ by |", "|---|---|---|---|---|"]  # fmt: skip
    for name, point in found.items():
        share = point.taken / point.plain
        cells = [name, f"{point.taken:.3g}", f"{point.plain:.3g}", f"{share:.2f}"]
        lines.append(f"| {' | '.join([*cells, f'{point.difference:.0e}'])} |")
    return "\n".join(lines)


def _compiled(case: Case) -> Ready:
    weigh = jax.random.normal(jax.random.key(1), jax.eval_shape(case.taken, *case.inputs).shape)

    def differentiated(form: Form) -> Form:
        def total(*inputs: jax.Array) -> jax.Array:
            return (form(*inputs) * weigh).sum()

        gradient = jax.grad(total, tuple(range(len(case.inputs))))
        return jax.jit(gradient).lower(*case.inputs).compile()

    return Ready(case.name, (differentiated(case.taken), differentiated(case.plain)), case.inputs)


def _max_pool(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (2, 2), (2, 2))


def _avg_pool(x: jax.Array) -> jax.Array:
    # Flax's divides by a window's size that XLA takes seconds to find.
    zero, window = np.zeros((), x.dtype), (1, 2, 2, 1)
    return jax.lax.reduce_window(x, zero, jax.lax.add, window, window, "VALID") / 4


def _normed(module: nn.Module) -> Form:
    def apply(x: jax.Array) -> Any:
        ones = jnp.ones(x.shape[-1:], x.dtype)
        return module.apply({"params": {"scale": ones, "bias": 0.1 * ones}}, x)

    return apply


def _conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return convolution.convolution(x, kernel, (1, 1), "SAME")


def _plain_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)


def _transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return convolution.transposed(x, kernel, 2, 1)


def _plain_transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_transpose(
        x, kernel, (2, 2), [(2, 2), (2, 2)], dimension_numbers=numbers, transpose_kernel=True
    )


def _dense(layer: Any) -> Form:
    def form(x: jax.Array, weights: jax.Array) -> jax.Array:
        return layer(weights.shape[1], use_bias=False).apply({"params": {"kernel": weights}}, x)

    return form


def _lstm_parts(x: jax.Array, weights: jax.Array) -> tuple[jax.Array, Any]:
    zeros = jnp.zeros((x.shape[1], weights.shape[1] // 4), x.dtype)
    return jnp.zeros((1, weights.shape[1]), x.dtype), (zeros, zeros)


def _lstm(x: jax.Array, weights: jax.Array) -> jax.Array:
    return lstm.lstm(False, weights, *_lstm_parts(x, weights), x, None)[1]


def _plain_lstm(x: jax.Array, weights: jax.Array) -> jax.Array:
    bias, state = _lstm_parts(x, weights)
    return over_time(partial(lstm.step, weights, bias), state, x, None, False)[1]
