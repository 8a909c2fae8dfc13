"""Schedules and optimizers by name, for configurations."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import optax

from jdl.core.errors import check_one_of, check_range, did_you_mean, error

Schedule = Callable[[Any], Any]
"""`schedule(step)`: the value at a step, both scalars."""


def _constant(steps: int) -> Schedule:
    return optax.constant_schedule(1.0)


def _step(steps: int, *, factor: float = 0.1, at: tuple[float, ...] = (0.5, 0.75)) -> Schedule:
    factors: dict[int, float] = {}
    for part in at:  # several may be at the same step of a short run
        step = max(1, round(part * steps))
        factors[step] = factors.get(step, 1.0) * factor
    return optax.piecewise_constant_schedule(1.0, factors)


def _exponential(
    steps: int, *, factor: float = 0.1, every: int | None = None, staircase: bool = False
) -> Schedule:
    return optax.exponential_decay(1.0, every or steps, factor, staircase=staircase)


def _cosine(steps: int, *, end: float = 0.0) -> Schedule:
    return optax.cosine_decay_schedule(1.0, steps, alpha=end)


def _warmup_cosine(steps: int, *, warmup: float = 0.1, end: float = 0.0) -> Schedule:
    check_range("schedule 'warmup_cosine': warmup", warmup, 0, 1)
    if warmup == 0:
        return _cosine(steps, end=end)
    rise = max(1, round(warmup * steps))
    # Step t of the rise has (t + 1) / (rise + 1): a rate of 0 would waste the first step.
    first = 1 / (rise + 1)
    return optax.warmup_cosine_decay_schedule(first, 1.0, rise, max(steps, rise + 1), end_value=end)


_SHAPES: dict[str, Callable[..., Schedule]] = {
    "constant": _constant,
    "step": _step,
    "exponential": _exponential,
    "cosine": _cosine,
    "warmup_cosine": _warmup_cosine,
}


def schedule(name: str, learning_rate: float | jax.Array, steps: int, **options: Any) -> Schedule:
    r"""The learning rate as a function of the step, $\eta(t) = \eta_0\,s(t)$.

    | name | s(t) over T = `steps` | options |
    |---|---|---|
    | `constant` | 1 | |
    | `step` | times `factor` at each fraction `at` of T | `factor=0.1, at=(0.5, 0.75)` |
    | `exponential` | `factor` ** (t / `every`) | `factor=0.1, every=T, staircase=False` |
    | `cosine` | from 1 to `end` along half a cosine | `end=0` |
    | `warmup_cosine` | up to 1 at `warmup` times T, then cosine | `warmup=0.1, end=0` |

    With a warm-up of W steps, s(t) = (t + 1) / (W + 1) until step W, so no step has a rate of 0.
    Fractions of T are rounded to whole steps, of at least 1; `warmup=0` begins with the cosine.

    The scalar `learning_rate` $\eta_0$ may be traced, as in a sweep. Raises `InputError` for an
    unknown name or option, for a `warmup` outside [0, 1], and for `steps` below 1.

    >>> [round(float(schedule("cosine", 0.2, 100)(step)), 3) for step in (0, 50, 100)]
    [0.2, 0.1, 0.0]

    Loshchilov and Hutter 2017, "SGDR: stochastic gradient descent with warm restarts".
    """
    check_one_of("schedule", name, _SHAPES)
    if steps < 1:
        raise error(
            "schedule steps",
            expected="at least 1",
            got=str(steps),
            fix="pass the number of steps of the run",
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


def by_name(
    name: str, learning_rate: float | jax.Array | Schedule, **options: Any
) -> optax.GradientTransformation:
    """The optax optimizer of a name, `optax.<name>(learning_rate, **options)`.

    The learning rate is a scalar or a schedule. `rmsprop` adds epsilon inside the square root;
    `eps_in_sqrt=False` adds it outside, as PyTorch does. Raises `InputError` for an unknown option,
    and for a name that is not an optax optimizer with a learning rate. Transformations such as
    `scale_by_rprop` are none, nor is `lbfgs`, which has to call the loss itself.

    >>> import jax.numpy as jnp
    >>> tx = by_name("sgd", 0.1, momentum=0.9)
    >>> updates, _ = tx.update({"w": jnp.ones(2)}, tx.init({"w": jnp.zeros(2)}))
    >>> updates["w"]
    Array([-0.1, -0.1], dtype=float32)
    """
    valid = _optimizers()
    if name not in valid:
        raise error(
            "optimizer",
            expected="the name of an optax optimizer that takes a learning rate",
            got=repr(name),
            fix="call optax.lbfgs in a loop of your own, which gives it the loss"
            if name == "lbfgs"
            else did_you_mean(str(name).removeprefix("scale_by_"), valid),
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
    """Functions of a learning rate that a learner can call: with gradient, parameters and loss."""

    def is_optimizer(name: str) -> bool:
        value = getattr(optax, name)
        if name.startswith(("_", "scale_by_")) or not inspect.isfunction(value):
            return False
        parameters = inspect.signature(value).parameters
        return "learning_rate" in parameters and "linesearch" not in parameters

    return [name for name in dir(optax) if is_optimizer(name)]
