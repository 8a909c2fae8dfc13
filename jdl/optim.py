"""Schedules by name, and short chains around an optax optimizer.

Optimizers are optax's own; here is only what makes them easy to name in a configuration.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jdl.core import tree
from jdl.core.errors import check_one_of, did_you_mean, error
from jdl.core.types import PyTree

Schedule = Callable[[Any], Any]


def _constant(steps: int) -> Schedule:
    return optax.constant_schedule(1.0)


def _step(steps: int, *, factor: float = 0.1, at: tuple[float, ...] = (0.5, 0.75)) -> Schedule:
    return optax.piecewise_constant_schedule(1.0, {round(part * steps): factor for part in at})


def _exponential(
    steps: int, *, factor: float = 0.1, every: int | None = None, staircase: bool = False
) -> Schedule:
    return optax.exponential_decay(1.0, every or steps, factor, staircase=staircase)


def _cosine(steps: int, *, end: float = 0.0) -> Schedule:
    return optax.cosine_decay_schedule(1.0, steps, alpha=end)


def _warmup_cosine(steps: int, *, warmup: float = 0.1, end: float = 0.0) -> Schedule:
    rise = max(1, round(warmup * steps))
    return optax.warmup_cosine_decay_schedule(0.0, 1.0, rise, max(steps, rise + 1), end_value=end)


_SHAPES: dict[str, Callable[..., Schedule]] = {
    "constant": _constant,
    "step": _step,
    "exponential": _exponential,
    "cosine": _cosine,
    "warmup_cosine": _warmup_cosine,
}


def schedule(name: str, learning_rate: Any, steps: int, **options: Any) -> Schedule:
    r"""The learning rate as a function of the step, $\eta(t) = \eta_0\,s(t)$.

    | name | s(t) over T = `steps` | options |
    |---|---|---|
    | `constant` | 1 | |
    | `step` | times `factor` at each of the parts `at` of T | `factor=0.1, at=(0.5, 0.75)` |
    | `exponential` | `factor` ** (t / `every`) | `factor=0.1, every=T, staircase=False` |
    | `cosine` | from 1 to `end` along half a cosine (Loshchilov & Hutter 2017) | `end=0` |
    | `warmup_cosine` | from 0 to 1 in the part `warmup` of T, then cosine | `warmup=0.1, end=0` |

    `learning_rate` only multiplies the shape, so it may be a traced number, as in a sweep.

    >>> [round(float(schedule("cosine", 0.2, 100)(step)), 3) for step in (0, 50, 100)]
    [0.2, 0.1, 0.0]
    """
    check_one_of("schedule", name, _SHAPES)
    if steps < 1:
        raise error(
            "schedule steps", expected="at least 1", got=str(steps), fix="give the run's length"
        )
    valid = list(inspect.signature(_SHAPES[name]).parameters)[1:]
    for option in options:
        if option not in valid:
            raise error(
                f"schedule {name!r}",
                expected=f"options {', '.join(valid)}" if valid else "no options",
                got=option,
                fix=did_you_mean(option, valid) if valid else "leave it out",
            )
    shape = _SHAPES[name](steps, **options)
    return lambda step: learning_rate * shape(step)


def by_name(name: str, learning_rate: Any, **options: Any) -> optax.GradientTransformation:
    """The optax optimizer of that name, `optax.<name>(learning_rate, **options)`.

    Only those that take a learning rate. Note that `rmsprop` adds epsilon inside the root unless
    `eps_in_sqrt=False`, which is PyTorch's way.

    >>> state = by_name("adam", 1e-3, b1=0.5).init({"w": jnp.zeros(2)})
    """
    valid = _optimizers()
    if name not in valid:
        raise error(
            "optimizer",
            expected="the name of an optax optimizer that takes a learning rate",
            got=repr(name),
            fix=did_you_mean(str(name), valid),
        )
    make = getattr(optax, name)
    known = inspect.signature(make).parameters
    for option in options:
        if option not in known:
            raise error(
                f"optimizer {name!r}",
                expected=f"options {', '.join(known)}",
                got=option,
                fix=did_you_mean(option, known),
            )
    return make(learning_rate, **options)


def _optimizers() -> list[str]:
    def takes_rate(value: Any) -> bool:
        return inspect.isfunction(value) and "learning_rate" in inspect.signature(value).parameters

    return [name for name in dir(optax) if name[0] != "_" and takes_rate(getattr(optax, name))]


def is_weight(path: str, leaf: Any) -> bool:
    """Whether a parameter is a weight: of two or more axes, and no bias and no scale.

    >>> is_weight("dense_1/kernel", jnp.zeros((3, 2))), is_weight("dense_1/bias", jnp.zeros(2))
    (True, False)
    """
    return jnp.ndim(leaf) >= 2 and path.rsplit("/", 1)[-1] not in ("bias", "scale")


def decay_mask(params: PyTree) -> PyTree:
    """True where weight decay belongs: for `optax.adamw(..., mask=decay_mask)`.

    Biases and normalisation scales are left alone.
    """
    return _map_paths(is_weight, params)


def clip(tx: optax.GradientTransformation, norm: float) -> optax.GradientTransformation:
    r"""Scale the gradient to a global norm of at most `norm` before `tx` sees it.

    $g \min(1, c/\lVert g \rVert)$ (Pascanu et al. 2013). Clip before, not after, an optimizer
    that divides by the gradient's size.
    """
    if isinstance(norm, int | float) and not norm > 0:
        raise error("clip norm", expected="a number above 0", got=repr(norm), fix="1 is usual")
    return optax.chain(optax.clip_by_global_norm(norm), tx)


def sparsity(params: PyTree, axes: int = 0) -> Any:
    """The share of weights that are exactly zero, as proximal L1 makes them; biases do not count.

    The first `axes` axes, those of an ensemble's members, are kept.

    >>> float(sparsity({"dense": {"kernel": jnp.array([[0.0, 1.0]]), "bias": jnp.zeros(2)}}))
    0.5
    """
    leaves = tree.flatten(params).items()
    kernels = [leaf for path, leaf in leaves if is_weight(path, leaf[(0,) * axes])]
    flat = [leaf.reshape(*leaf.shape[:axes], -1) for leaf in kernels]
    return (jnp.concatenate(flat, axes) == 0).mean(axes)


def soft_threshold(
    by: Any, where: Callable[[str, Any], bool] = is_weight
) -> optax.GradientTransformation:
    r"""After the step, pull each weight towards zero by `by`, and no further than zero.

    $w \leftarrow \mathrm{sign}(v) \max(|v| - t, 0)$ with v the weight after the step and t = `by`,
    a number or a schedule. It stands last in a chain. With $t = \eta\lambda$ behind SGD of rate
    $\eta$ this is the proximal step of the penalty $\lambda \lVert w \rVert_1$, which ends at exact
    zeros where the penalty's subgradient does not (Beck & Teboulle 2009). `where(path, leaf)` says
    which leaves; biases and normalisation scales are left out by default.

    >>> tx = optax.chain(optax.sgd(0.1), soft_threshold(0.1 * 0.5))
    >>> w = {"kernel": jnp.array([[1.0, 0.04]])}
    >>> updates, _ = tx.update(jax.tree.map(jnp.zeros_like, w), tx.init(w), w)
    >>> optax.apply_updates(w, updates)["kernel"]
    Array([[0.95, 0.  ]], dtype=float32)
    """
    if isinstance(by, int | float) and not by >= 0:
        raise error(
            "soft_threshold",
            expected="a number of at least 0",
            got=repr(by),
            fix="learning rate times penalty",
        )

    def init(params: PyTree) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates: PyTree, state: Any, params: PyTree | None = None) -> tuple[PyTree, Any]:
        if params is None:
            raise error(
                "soft_threshold",
                expected="the parameters, which it acts on",
                got="none",
                fix="call tx.update(updates, state, params)",
            )
        threshold: Any = by(state.count) if callable(by) else by

        def shrunk(path: str, weight: Any, change: Any) -> Any:
            if not where(path, weight):
                return change
            moved = weight + change
            size = jnp.maximum(jnp.abs(moved) - threshold, 0)
            return (jnp.sign(moved) * size - weight).astype(change.dtype)

        changes = jax.tree.map_with_path(
            lambda keys, weight, change: shrunk(tree.path(keys), weight, change), params, updates
        )
        return changes, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)


def freeze(tx: optax.GradientTransformation, pattern: str) -> optax.GradientTransformation:
    """Leave the parameters whose path matches `pattern` (a regular expression) as they are.

    Paths are those of `jdl.core.tree.flatten`, and the whole path must match:
    `freeze(tx, "conv_.*")`. The optimizer keeps no moments for frozen parameters. Raises if
    nothing matches, since a misspelled layer would train silently.
    """
    expression = re.compile(pattern)

    def labels(params: PyTree) -> PyTree:
        paths = list(tree.flatten(params))
        if not any(expression.fullmatch(path) for path in paths):
            raise error(
                "freeze",
                expected="a pattern that matches the path of a parameter",
                got=repr(pattern),
                fix=did_you_mean(pattern, paths),
            )
        return _map_paths(
            lambda path, _: "frozen" if expression.fullmatch(path) else "trained", params
        )

    return optax.partition({"trained": tx, "frozen": optax.set_to_zero()}, labels)


def _map_paths(function: Callable[[str, Any], Any], params: PyTree) -> PyTree:
    return jax.tree.map_with_path(lambda keys, leaf: function(tree.path(keys), leaf), params)
