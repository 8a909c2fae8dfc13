"""Transformations that optax lacks: a proximal step, frozen layers, clipping in float32."""

import difflib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jdl.core import tree
from jdl.core.errors import error
from jdl.core.types import PyTree
from jdl.optim.schedules import Schedule


def is_weight(path: str, leaf: Any) -> bool:
    """Whether a parameter is a weight: at least two axes, and not named `bias` or `scale`.

    >>> is_weight("dense_1/kernel", jnp.zeros((3, 2))), is_weight("dense_1/bias", jnp.zeros(2))
    (True, False)
    """
    return jnp.ndim(leaf) >= 2 and path.rsplit("/", 1)[-1] not in ("bias", "scale")


def decay_mask(params: PyTree) -> PyTree:
    """A tree of booleans, true for weights: for `optax.adamw(..., mask=decay_mask)`.

    Arrays with fewer than two axes, biases and normalisation scales are not decayed.

    >>> decay_mask({"dense": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}})
    {'dense': {'bias': False, 'kernel': True}}
    """
    return _map_paths(is_weight, params)


def clip(tx: optax.GradientTransformation, norm: float) -> optax.GradientTransformation:
    r"""Scale the gradient down to a global norm of at most `norm` before it reaches `tx`.

    $g \min(1, c/\lVert g \rVert)$ with $c$ = `norm`. Raises `InputError` unless `norm` is above 0.

    >>> tx = clip(optax.sgd(1.0), norm=1.0)
    >>> updates, _ = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
    >>> print(updates.round(3))
    [-0.6 -0.8]

    Pascanu, Mikolov and Bengio 2013, "On the difficulty of training recurrent neural networks".
    """
    if isinstance(norm, int | float) and not norm > 0:
        raise error(
            "clip norm", expected="a number above 0", got=repr(norm), fix="choose 1, as is usual"
        )

    def limit(updates: PyTree, _: PyTree | None = None) -> PyTree:
        scale = jnp.minimum(1.0, norm / jnp.maximum(tree.norm(updates), 1e-30))
        return jax.tree.map(lambda update: (update * scale).astype(update.dtype), updates)

    # Not optax.clip_by_global_norm, which sums bfloat16 gradients in bfloat16.
    return optax.chain(optax.stateless(limit), tx)


def sparsity(params: PyTree, axes: int = 0) -> jax.Array:
    """The share of weights that are exactly zero; biases and normalisation scales do not count.

    The result is a scalar. With `axes=1` the parameters of an ensemble give one value per member.

    >>> float(sparsity({"dense": {"kernel": jnp.array([[0.0, 1.0]]), "bias": jnp.zeros(2)}}))
    0.5
    """
    leaves = tree.flatten(params).items()
    kernels = [leaf for path, leaf in leaves if is_weight(path, leaf[(0,) * axes])]
    flat = [leaf.reshape(*leaf.shape[:axes], -1) for leaf in kernels]
    return (jnp.concatenate(flat, axes) == 0).mean(axes)


def soft_threshold(
    by: float | jax.Array | Schedule, where: Callable[[str, Any], bool] = is_weight
) -> optax.GradientTransformation:
    r"""Shrink each updated weight towards zero by `by`, down to exactly zero.

    $w \leftarrow \mathrm{sign}(v) \max(|v| - t, 0)$ with $v$ the weight after the update and the
    scalar or schedule $t$ = `by`. Put it last in a chain. After SGD with learning rate $\eta$,
    $t = \eta\lambda$ is the proximal step of the penalty $\lambda \lVert w \rVert_1$. It applies
    to parameters for which `where(path, leaf)` is true, by default not to biases and normalisation
    scales. Raises `InputError` for a negative `by`, and in `update` without parameters.

    >>> tx = optax.chain(optax.sgd(0.1), soft_threshold(0.1 * 0.5))
    >>> w = {"kernel": jnp.array([[1.0, 0.04]])}
    >>> updates, _ = tx.update(jax.tree.map(jnp.zeros_like, w), tx.init(w), w)
    >>> optax.apply_updates(w, updates)["kernel"]
    Array([[0.95, 0.  ]], dtype=float32)

    Beck and Teboulle 2009, "A fast iterative shrinkage-thresholding algorithm for linear inverse
    problems".
    """
    if isinstance(by, int | float) and not by >= 0:
        raise error(
            "soft_threshold",
            expected="a number of at least 0",
            got=repr(by),
            fix="pass the learning rate times the weight of the penalty",
        )

    def init(params: PyTree) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates: PyTree, state: Any, params: PyTree | None = None) -> tuple[PyTree, Any]:
        if params is None:
            raise error(
                "soft_threshold",
                expected="the parameters, which it shrinks",
                got="none",
                fix="call tx.update(updates, state, params)",
            )
        threshold: Any = by(state.count) if callable(by) else by

        def shrink(path: str, weight: Any, update: Any) -> Any:
            if not where(path, weight):
                return update
            after = weight + update
            size = jnp.maximum(jnp.abs(after) - threshold, 0)
            return (jnp.sign(after) * size - weight).astype(update.dtype)

        updates = jax.tree.map_with_path(
            lambda keys, weight, update: shrink(tree.path(keys), weight, update), params, updates
        )
        return updates, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)


def freeze(tx: optax.GradientTransformation, pattern: str) -> optax.GradientTransformation:
    """Do not update the parameters in whose path the regular expression `pattern` is found.

    A path joins the keys of a parameter by slashes, such as "conv_1/kernel". As in
    `jdl.rules.regex`, patterns are searched with `re.search`: "^conv_1/" freezes one layer. The
    optimizer has no state for frozen parameters.

    An optimizer does not reach the model state, so the running statistics of a frozen batch
    normalization still move. To stop them, train the model in evaluation mode, without dropout:

        fixed = jdl.Model(model.init, lambda p, s, x, **_: model.apply(p, s, x))

    or build frozen layers with `use_running_average=True`.

    Raises `InputError` for an invalid pattern; `init` raises it if no path matches.

    >>> tx = freeze(optax.sgd(0.1), "^conv_")
    >>> params = {"conv_1": {"kernel": jnp.ones(1)}, "output": {"kernel": jnp.ones(1)}}
    >>> updates, _ = tx.update(params, tx.init(params), params)
    >>> print(updates["conv_1"]["kernel"], updates["output"]["kernel"])
    [0.] [-0.1]
    """
    try:
        expression = re.compile(pattern)
    except (re.error, TypeError) as bad:
        raise error(
            f"freeze: pattern {pattern!r}",
            expected="a regular expression",
            got=f"an invalid one: {bad}",
            fix='pass one that is found in the paths to freeze, such as "^conv_"',
        ) from None

    def labels(params: PyTree) -> PyTree:
        paths = list(tree.flatten(params))
        if not any(expression.search(path) for path in paths):
            near = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.3) or paths[:3]
            raise error(
                "freeze",
                expected="a pattern that is found in the path of a parameter",
                got=repr(pattern),
                fix=f"change it to match paths such as {', '.join(near)}",
            )
        return _map_paths(
            lambda path, _: "frozen" if expression.search(path) else "trained", params
        )

    return optax.partition({"trained": tx, "frozen": optax.set_to_zero()}, labels)


def _map_paths(function: Callable[[str, Any], Any], params: PyTree) -> PyTree:
    return jax.tree.map_with_path(lambda keys, leaf: function(tree.path(keys), leaf), params)
