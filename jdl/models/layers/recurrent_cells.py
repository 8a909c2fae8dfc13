r"""Recurrent cells as pure functions, and the layer that runs one over time.

A cell turns its weights into a step, `bind(weights) -> (step(state, x) -> state)`. The state is a
tuple of arrays (batch, m); the first one, h, is the output. `bind` concatenates the kernels once,
before the scan, so that each step is one product $[x, h]\,W$. On CPU this is faster than
multiplying all inputs beforehand.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.core import Tracer

from jdl.core.errors import check_lengths, check_one_of, error
from jdl.models.layers import lstm_kernel, primitives
from jdl.models.layers.scan_time import State, Step, scan_time

Run = Callable[["Weights", State, jax.Array, Any, bool], tuple[State, jax.Array]]
"""`run(weights, state, x, mask, reverse) -> (last state, outputs)`, time on the first axis."""


Sequences = jax.Array | tuple[jax.Array, jax.Array]
"""Sequences (batch, time, features), or a pair of them and their lengths (batch,)."""


class Weights(NamedTuple):
    """Weights of a cell of m units on n inputs, with b blocks of m columns each."""

    kernel: jax.Array
    """Of the inputs, (n, b m)."""
    recurrent: jax.Array
    """Of the previous state, (m, b m)."""
    bias: jax.Array
    """(b m,)."""
    inner_bias: Any = None
    """(m,), or None."""

    def joined(self, first: int, last: int) -> tuple[jax.Array, jax.Array]:
        """Kernel (n + m, k m) and bias (1, k m) of the k blocks first ... last - 1."""
        units = self.recurrent.shape[0]
        columns = slice(first * units, last * units)
        kernel = jnp.concatenate([self.kernel[:, columns], self.recurrent[:, columns]])
        return kernel, self.bias[None, columns]


class Cell(NamedTuple):
    """A kind of recurrent unit."""

    bind: Callable[[Weights], Step]
    blocks: int
    """Blocks of the kernels: one for each gate and one for the candidate."""
    carried: int
    """Number of arrays in the state."""
    keeps: tuple[tuple[int, int], ...] = ()
    """Blocks whose bias sets how long the state persists, and its sign."""
    open_bias: float = 0.0
    """Initial value of the first of these biases."""
    has_inner_bias: bool = False
    """Whether the recurrent part of the candidate has a separate bias."""
    run: Run | None = None
    """A run over all steps whose gradient is faster than that of a scan."""


def _simple(weights: Weights) -> Step:
    kernel, bias = weights.joined(0, 1)

    def step(state: State, x: jax.Array) -> State:
        return (jnp.tanh(_join(x, state[0]) @ kernel + bias),)

    return step


def _lstm(weights: Weights) -> Step:
    kernel, bias = weights.joined(0, 4)

    return partial(lstm_kernel.step, kernel, bias)


def _lstm_run(
    weights: Weights, state: State, x: jax.Array, real: Any, reverse: bool
) -> tuple[State, jax.Array]:
    return lstm_kernel.lstm(reverse, *weights.joined(0, 4), state, x, real)


def _gru(weights: Weights) -> Step:
    units = weights.recurrent.shape[0]
    kernel, bias = weights.joined(0, 2)
    inputs, recurrent = weights.kernel[:, 2 * units :], weights.recurrent[:, 2 * units :]
    outer, inner = weights.bias[None, 2 * units :], weights.inner_bias[None]

    def step(state: State, x: jax.Array) -> State:
        (h,) = state
        reset, keep = jnp.split(nn.sigmoid(_join(x, h) @ kernel + bias), 2, axis=-1)
        new = jnp.tanh(x @ inputs + outer + reset * (h @ recurrent + inner))
        return (keep * h + (1 - keep) * new,)

    return step


def _minimal(weights: Weights) -> Step:
    kernel, bias = weights.joined(0, 1)
    inner_kernel, inner_bias = weights.joined(1, 2)

    def step(state: State, x: jax.Array) -> State:
        (h,) = state
        gate = nn.sigmoid(_join(x, h) @ kernel + bias)
        new = jnp.tanh(_join(x, gate * h) @ inner_kernel + inner_bias)
        return ((1 - gate) * h + gate * new,)

    return step


def _join(x: jax.Array, h: jax.Array) -> jax.Array:
    return jnp.concatenate([x, h], axis=-1)


CELLS = {
    "gru": Cell(_gru, blocks=3, carried=1, keeps=((1, 1),), has_inner_bias=True),
    "lstm": Cell(_lstm, blocks=4, carried=2, keeps=((1, 1), (0, -1)), open_bias=1.0, run=_lstm_run),
    "mgu": Cell(_minimal, blocks=2, carried=1, keeps=((0, -1),)),
    "rnn": Cell(_simple, blocks=1, carried=1),
}
r"""Cells by name. $W$ acts on the joined $[x_t, h_{t-1}]$, $\sigma$ is the sigmoid.

- `"rnn"` (Elman 1990): $h_t = \tanh(W[x_t, h_{t-1}] + b)$. Its gradient over many steps is a
  product of as many matrices, so it vanishes or explodes.
- `"lstm"` (Hochreiter & Schmidhuber 1997; Gers et al. 2000): blocks i, f, g, o in this order,
  $c_t = \sigma(f)\,c_{t-1} + \sigma(i)\tanh(g)$, $h_t = \sigma(o)\tanh(c_t)$. The bias of f starts
  at one, so that the cell remembers at first.
- `"gru"` (Cho et al. 2014): blocks r, z, n. **z keeps the old state**:
  $h_t = z\,h_{t-1} + (1-z)\,n$, as in PyTorch; some texts swap z and 1 - z.
  The reset gate acts after the product, $n = \tanh(W_n x_t + b_n + r(U_n h_{t-1} + b'))$, as in
  PyTorch and cuDNN (before it in Cho et al.: $U_n(r\,h_{t-1})$), so $b'$ is a separate bias.
- `"mgu"` (Zhou et al. 2016): blocks f, n, with a single gate. **f lets in the new state**:
  $n = \tanh(W_n[x_t, f\,h_{t-1}] + b_n)$, $h_t = (1-f)\,h_{t-1} + f\,n$.

Each block has one bias, the sum of PyTorch's two.
"""


def cell(name: str) -> Cell:
    """The cell of that name.

    >>> cell("lstm").blocks
    4
    """
    return CELLS[check_one_of("cell", name, CELLS)]


def _stepwise(
    kind: Cell, weights: Weights, state: State, x: jax.Array, real: Any, reverse: bool
) -> tuple[State, jax.Array]:
    return scan_time(kind.bind(weights), state, x, real, reverse)


class Recurrent(nn.Module):
    r"""One layer of a recurrent cell, run over time by a scan.

    Inputs are (batch, time, n) and, for padded sequences, a mask (batch, time) that is true at true
    steps. Returns the outputs (batch, time, features) and the last state. At padded steps the state
    does not change and the output is zero, so the last state is that after the last true step. With
    `reverse` the scan runs from the end to the start.

    Parameters are `kernel` (n, b m), Glorot; `recurrent_kernel` (m, b m), orthogonal for each
    block, which preserves the size of the state (Saxe et al. 2014); `bias` (b m,), zero except one
    for the LSTM's forget gate (Jozefowicz et al. 2015); and the GRU's `inner_bias` (m,), zero. With
    `memory` the units start with time constants spread over 1 ... `memory` steps: the biases of
    gates that keep the state are $\ln u$, u uniform in [1, memory - 1], those of gates that let in
    the new one $-\ln u$ (Tallec & Ollivier 2018). `"rnn"` has no gates and ignores `memory`.

    >>> layer = Recurrent(5, "gru")
    >>> x = jnp.zeros((2, 7, 3))
    >>> (outputs, (last,)), _ = layer.init_with_output(jax.random.key(0), x)
    >>> outputs.shape, last.shape
    ((2, 7, 5), (2, 5))
    """

    features: int
    cell: str = "lstm"
    reverse: bool = False
    memory: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> tuple[jax.Array, State]:
        """Return all outputs, and the last state."""
        kind, units = cell(self.cell), self.features
        weights = self._weights(kind, x.shape[-1])
        # From the inputs, so that in a mapped step it varies over devices as they do.
        kind_of_state = jnp.result_type(x, *jax.tree.leaves(weights))
        zero = jnp.zeros_like(x, dtype=kind_of_state, shape=(x.shape[0], units))
        steps = jnp.moveaxis(x, 1, 0), None if mask is None else mask.T[..., None]
        run = kind.run or partial(_stepwise, kind)
        last, outputs = run(weights, (zero,) * kind.carried, *steps, self.reverse)
        return jnp.moveaxis(outputs, 0, 1), last

    def _weights(self, kind: Cell, inputs: int) -> Weights:
        units, width = self.features, kind.blocks * self.features
        inner = None
        if kind.has_inner_bias:
            zeros = nn.initializers.zeros_init()
            inner = self.param("inner_bias", zeros, (units,), jnp.float32)
        # The type is explicit: the default of JAX's initializers depends on jax_enable_x64.
        return Weights(
            self.param("kernel", _glorot(kind.blocks), (inputs, width), jnp.float32),
            self.param("recurrent_kernel", _rotations, (units, width), jnp.float32),
            self.param("bias", _first_bias(kind, units, self.memory), (width,), jnp.float32),
            inner,
        )


def _glorot(blocks: int) -> primitives.Initializer:
    def draw(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
        size, glorot = (shape[0], shape[1] // blocks), primitives.INITIALIZERS["glorot"]
        keys = jax.random.split(key, blocks)
        return jnp.concatenate([glorot(k, size, dtype) for k in keys], axis=1)

    return draw


def _rotations(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
    """Random orthogonal matrices, concatenated along the columns."""
    units = shape[0]
    keys = jax.random.split(key, shape[1] // units)
    matrices = jax.vmap(partial(_rotation, units=units, dtype=dtype))(keys)
    return jnp.moveaxis(matrices, 0, 1).reshape(shape)


def _rotation(key: jax.Array, units: int, dtype: Any) -> jax.Array:
    """A uniformly random orthogonal matrix, as a product of reflections (Stewart 1980).

    Not by a QR decomposition: several of those at once, as under `ensemble`, can hang on CPU.
    """
    draws = jnp.triu(jax.random.normal(key, (units, units), dtype))

    def reflect(back: jax.Array, matrix: jax.Array) -> jax.Array:
        i = units - 1 - back
        sign = jnp.where(draws[i, i] < 0, -1, 1).astype(dtype)
        v = draws[i].at[i].add(sign * jnp.sqrt((draws[i] ** 2).sum()))
        matrix = matrix.at[i].multiply(-sign)
        return matrix - (2 / (v**2).sum()) * v[:, None] * (v @ matrix)[None]

    return jax.lax.fori_loop(0, units, reflect, jnp.eye(units, dtype=dtype))


def _first_bias(kind: Cell, units: int, memory: int | None) -> primitives.Initializer:
    if memory is not None and memory < 2:
        raise error(
            "memory",
            expected="at least 2 steps",
            got=str(memory),
            fix="pass the length of the longest dependency, or leave it out",
        )

    def draw(key: jax.Array, shape: tuple[int], dtype: Any = jnp.float32) -> jax.Array:
        bias = jnp.zeros((kind.blocks, units), dtype)
        if memory is None:
            for block, _ in kind.keeps[:1]:
                bias = bias.at[block].set(kind.open_bias)
        else:
            most = max(memory - 1, 1)
            span = jnp.log(jax.random.uniform(key, (units,), dtype, minval=1, maxval=most))
            for block, sign in kind.keeps:
                bias = bias.at[block].set(sign * span)
        return bias.reshape(shape)

    return draw


def true_steps(inputs: Sequences) -> tuple[jax.Array, jax.Array | None]:
    """Sequences (batch, time, n) with zeros in the padding, and their mask (batch, time) or None.

    `inputs` is an array, or a pair of it and the lengths (batch,), integers from 1 to time. What
    the padding holds, even nan, reaches neither outputs nor gradients. Raises `InputError` for
    inputs of another rank, and lengths that are not such integers.

    >>> x, mask = true_steps((jnp.ones((1, 3, 1)), jnp.array([2])))
    >>> x[0, :, 0], mask[0]
    (Array([1., 1., 0.], dtype=float32), Array([ True,  True, False], dtype=bool))
    """
    x, lengths = inputs if isinstance(inputs, tuple | list) else (inputs, None)
    shape = getattr(x, "shape", None)
    if shape is None or len(shape) != 3:
        raise error(
            "sequences",
            expected="an array of shape (batch, time, features)",
            got=f"shape {shape}" if shape is not None else type(x).__name__,
            fix="add a feature axis with x[..., None]",
        )
    if lengths is None:
        return x, None
    dtype = jnp.result_type(lengths)
    if jnp.shape(lengths) != shape[:1] or not jnp.issubdtype(dtype, jnp.integer):
        raise error(
            "lengths",
            expected=f"one integer for each sequence, shape {shape[:1]}",
            got=f"{dtype} of shape {jnp.shape(lengths)}",
            fix="count the true steps of each sequence",
        )
    if not isinstance(lengths, Tracer):
        check_lengths(lengths, shape[1], "lengths")
    mask = jnp.arange(shape[1])[None] < jnp.asarray(lengths)[:, None]
    return jnp.where(mask[..., None], x, 0), mask
