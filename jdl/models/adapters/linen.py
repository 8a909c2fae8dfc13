"""Adapters: a `Model` from a Linen module or from plain functions."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import flax.errors
import jax
from flax import linen as nn

from jdl.core.errors import InputError, error
from jdl.core.types import Key, Model, PyTree
from jdl.models.adapters.check_module import (
    TRAIN_FLAGS,
    check_functions,
    check_linen_module,
    draws_in_evaluation,
    unbound_axis,
)

_STREAMS = ("params", "dropout", "noise")
_TOO_SMALL = (
    'the image is too small for the network: use larger inputs, padding="SAME", or fewer layers'
)


def from_linen(module: nn.Module) -> Model:
    """Convert a Linen module that takes one argument, the inputs, to a `Model`.

    `params` is the collection of that name. `model_state` is a dict of all other collections
    (`batch_stats`, ...), which change in training only. If `__call__` takes `train`, `training`,
    `deterministic` or `use_running_average`, the adapter sets it. A key feeds all random streams of
    the module. Shapes of inputs and outputs are those of the module. `init` runs compiled.

    Raises `InputError` for a module of several arguments, at `init` for a layer with inputs or
    outputs of size zero (Flax would train such a network), and at `apply` for inputs that do not
    fit the parameters, or a missing key.

    >>> model = from_linen(nn.Dense(3, name="dense"))
    >>> params, model_state = model.init(jax.random.key(0), jax.numpy.ones((5, 2)))
    >>> outputs, model_state = model.apply(params, model_state, jax.numpy.ones((5, 2)))
    >>> outputs.shape
    (5, 3)
    """
    check_linen_module(module)
    flags = train_flags(type(module).__call__)

    @jax.jit
    def init(key: Key, inputs: PyTree) -> tuple[PyTree, PyTree]:
        with nn.intercept_methods(_refuse_empty_layers):
            variables = module.init(_rngs(key), inputs, **flags(False))
        model_state = {name: values for name, values in variables.items() if name != "params"}
        return variables.get("params", {}), model_state

    def apply(
        params: PyTree,
        model_state: PyTree,
        inputs: PyTree,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        variables = {"params": params, **model_state}
        settings: dict[str, Any] = {"rngs": _rngs(key), **flags(train)}
        try:
            if not (train and model_state):
                return module.apply(variables, inputs, **settings), model_state
            outputs, changed = module.apply(
                variables, inputs, mutable=list(model_state), **settings
            )
            return outputs, {**model_state, **changed}  # pyright: ignore[reportGeneralTypeIssues]
        except flax.errors.InvalidRngError as cause:
            raise (needs_key() if train else draws_in_evaluation()) from cause
        except NameError as cause:
            raise unbound_axis(cause) from cause
        except (flax.errors.ScopeParamShapeError, flax.errors.ScopeParamNotFoundError) as cause:
            raise error(
                "inputs",
                expected="the shapes that the parameters were initialised for",
                got=_shapes(inputs),
                fix="reshape the inputs to those passed to init, or initialise the model again",
            ) from cause

    return Model(init, apply)


def from_functions(init: Callable[..., PyTree], apply: Callable[..., PyTree]) -> Model:
    """Convert two plain functions to a `Model`, in one of two signatures.

    - short: `init(key, inputs) -> params` and `apply(params, inputs) -> outputs`;
    - full: `init(key, inputs) -> (params, model_state)` and
      `apply(params, model_state, inputs) -> (outputs, model_state)`.

    In both, `apply` may also take `key=` and `train=`. The signature is full if `apply` has an
    argument called `model_state`. Raises `InputError` at `init` for a full signature whose `init`
    does not return a pair, and for an operation with outputs of size zero.

    >>> model = from_functions(
    ...     lambda key, inputs: {"scale": jax.numpy.ones(inputs.shape[-1])},
    ...     lambda params, inputs: inputs @ params["scale"],
    ... )
    >>> params, model_state = model.init(jax.random.key(0), jax.numpy.ones((5, 2)))
    >>> model.apply(params, model_state, jax.numpy.ones((5, 2)))[0].shape
    (5,)
    """
    check_functions(init, apply)
    names = _parameters(apply)
    full = "model_state" in names
    jitted_init = jax.jit(init)

    def init_both(key: Key, inputs: PyTree) -> tuple[PyTree, PyTree]:
        variables = jitted_init(key, inputs)
        if full and not (isinstance(variables, tuple) and len(variables) == 2):
            raise error(
                "from_functions init",
                expected="(params, model_state), because apply takes model_state",
                got=type(variables).__name__,
                fix="return both, or leave model_state out of apply",
            )
        params, model_state = variables if full else (variables, {})
        refuse_empty_operations(functools.partial(apply_both, params, model_state), inputs)
        return params, model_state

    def apply_both(
        params: PyTree,
        model_state: PyTree,
        inputs: PyTree,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        options = {"key": key, "train": train}
        options = {name: value for name, value in options.items() if name in names}
        if full:
            return apply(params, model_state, inputs, **options)
        return apply(params, inputs, **options), model_state

    return Model(init_both, apply_both)


def _parameters(function: Callable[..., Any]) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return {parameter.name for parameter in parameters} | {"key", "train"}
    return {parameter.name for parameter in parameters}


def train_flags(call: Callable[..., Any]) -> Callable[[bool], dict[str, Any]]:
    """Return a function of `train` that gives the keyword arguments `call` takes for it."""
    flags = inspect.signature(call).parameters.keys() & TRAIN_FLAGS.keys()
    return lambda train: {name: train == TRAIN_FLAGS[name] for name in flags}


def _rngs(key: Key | None) -> dict[str, Key]:
    """A key for each random stream; Flax feeds streams not named here from `params`."""
    if key is None:
        return {}
    return dict(zip(_STREAMS, jax.random.split(key, len(_STREAMS)), strict=True))


def needs_key() -> InputError:
    """The error of a model that draws random numbers but has no key."""
    return error(
        "key",
        expected="a random key, because the model draws random numbers (dropout, noise)",
        got="none",
        fix="pass key=jax.random.key(0) to apply",
    )


def _shapes(values: PyTree) -> str:
    shapes = [str(tuple(leaf.shape)) for leaf in jax.tree.leaves(values) if hasattr(leaf, "shape")]
    return f"shape {', '.join(shapes)}" if shapes else "no arrays"


def _is_empty(values: PyTree) -> bool:
    return any(getattr(leaf, "size", 1) == 0 for leaf in jax.tree.leaves(values))


def _refuse_empty_layers(
    call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
) -> Any:
    if context.method_name != "__call__":
        return call(*args, **kwargs)
    path = context.module.path
    width = getattr(context.module, "features", 1)
    if isinstance(width, int) and width < 1:
        raise error(
            f"layer {'/'.join(path) or 'output'}",
            expected="at least one unit",
            got=str(width),
            fix="pass a width of 1 or more",
        )
    if _is_empty(args):
        raise _empty_layer(path, f"inputs of {_shapes(args)}") if path else _no_inputs(args)
    outputs = call(*args, **kwargs)
    if _is_empty(outputs):
        raise _empty_layer(path, f"inputs of {_shapes(args)}, outputs of {_shapes(outputs)}")
    return outputs


def _empty_layer(path: tuple[str, ...], got: str) -> InputError:
    return error(
        f"layer {'/'.join(path) or 'output'}",
        expected="arrays with at least one element",
        got=got,
        fix=_TOO_SMALL,
    )


def _no_inputs(inputs: PyTree) -> InputError:
    return error(
        "inputs",
        expected="at least one example with at least one element",
        got=_shapes(inputs),
        fix="pass a batch that is not empty",
    )


def refuse_empty_operations(call: Callable[..., Any], inputs: PyTree) -> None:
    """Raise `InputError` for inputs or operations of size zero, in models without layer names."""
    if _is_empty(inputs):
        raise _no_inputs(inputs)
    for name, before, after in _operations(jax.make_jaxpr(call)(inputs).jaxpr):
        if 0 in after:
            raise _empty_layer((name,), f"inputs of shape {before}, outputs of shape {after}")


def _operations(jaxpr: Any) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        # Only these: other operations, such as random bits, may use empty arrays.
        if name in ("conv_general_dilated", "dot_general") or name.startswith("reduce_window"):
            yield name, equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _operations(inner)
