"""Ways into `Model`: from a Linen module and from plain functions (`nnx`: from an NNX module)."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import flax.errors
import jax
from flax import linen as nn

from jdl.core.errors import InputError, error
from jdl.core.types import Key, Model, PyTree

# What libraries call the flag, and its value in training.
_TRAIN_FLAGS = {
    "train": True,
    "training": True,
    "deterministic": False,
    "use_running_average": False,
}
_STREAMS = ("params", "dropout", "noise")
_TOO_SMALL = (
    'the image is too small for the network: use larger inputs, padding="SAME", or fewer layers'
)


def from_linen(module: nn.Module) -> Model:
    """A `Model` of a Linen module that is called with one argument, the inputs.

    `params` is the collection of that name, `model_state` a dict of all others (`batch_stats`,
    ...), which only a call in training changes. If `__call__` takes `train` (or `training`,
    `deterministic`, `use_running_average`) it is told. A key feeds every random stream that the
    module asks for.

    `init` runs compiled. Raises `InputError` at `init` if a layer receives or produces an
    array of size zero, naming the layer; Flax itself would train such a network.

    >>> model = from_linen(nn.Dense(3, name="dense"))
    >>> params, model_state = model.init(jax.random.key(0), jax.numpy.ones((5, 2)))
    >>> outputs, model_state = model.apply(params, model_state, jax.numpy.ones((5, 2)))
    >>> outputs.shape
    (5, 3)
    """
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
            raise needs_key() from cause
        except (flax.errors.ScopeParamShapeError, flax.errors.ScopeParamNotFoundError) as cause:
            raise error(
                "inputs",
                expected="the shapes that the parameters were made for",
                got=_shapes(inputs),
                fix="reshape the inputs as those given to init, or initialise the model anew",
            ) from cause

    return Model(init, apply)


def from_functions(init: Callable[..., PyTree], apply: Callable[..., PyTree]) -> Model:
    """A `Model` of two plain functions, in one of two forms.

    - short: `init(key, inputs) -> params` and `apply(params, inputs) -> outputs`, which may
      also take `key=` and `train=`;
    - full: `init(key, inputs) -> (params, model_state)` and
      `apply(params, model_state, inputs, *, key=None, train=False) -> (outputs, model_state)`.

    The form is full where `apply` has an argument called `model_state`.

    >>> model = from_functions(
    ...     lambda key, inputs: {"scale": jax.numpy.ones(inputs.shape[-1])},
    ...     lambda params, inputs: inputs @ params["scale"],
    ... )
    >>> params, model_state = model.init(jax.random.key(0), jax.numpy.ones((5, 2)))
    >>> model.apply(params, model_state, jax.numpy.ones((5, 2)))[0].shape
    (5,)
    """
    names = _parameters(apply)
    full = "model_state" in names
    start = jax.jit(init)

    def init_both(key: Key, inputs: PyTree) -> tuple[PyTree, PyTree]:
        made = start(key, inputs)
        if full and not (isinstance(made, tuple) and len(made) == 2):
            raise error(
                "from_functions init",
                expected="(params, model_state), because apply takes model_state",
                got=type(made).__name__,
                fix="return both, or leave model_state out of apply",
            )
        params, model_state = made if full else (made, {})
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
    found = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
        return {parameter.name for parameter in found} | {"key", "train"}
    return {parameter.name for parameter in found}


def train_flags(call: Callable[..., Any]) -> Callable[[bool], dict[str, Any]]:
    """How to tell a module's call whether this is training, in the words it uses."""
    taken = inspect.signature(call).parameters.keys() & _TRAIN_FLAGS.keys()
    return lambda train: {name: train == _TRAIN_FLAGS[name] for name in taken}


def _rngs(key: Key | None) -> dict[str, Key]:
    """A key for each random stream; one that is not named here is fed from `params`."""
    if key is None:
        return {}
    return dict(zip(_STREAMS, jax.random.split(key, len(_STREAMS)), strict=True))


def needs_key() -> InputError:
    """The error of a model that draws random numbers and was given no key."""
    return error(
        "key",
        expected="a random key, because the model draws random numbers here (dropout, noise)",
        got="none",
        fix="pass key=jax.random.key(0) to apply",
    )


def _shapes(values: PyTree) -> str:
    found = [str(tuple(leaf.shape)) for leaf in jax.tree.leaves(values) if hasattr(leaf, "shape")]
    return f"shape {', '.join(found)}" if found else "no arrays"


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
            fix="give the layer a width of 1 or more",
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
        expected="arrays with at least one number",
        got=got,
        fix=_TOO_SMALL,
    )


def _no_inputs(inputs: PyTree) -> InputError:
    return error(
        "inputs",
        expected="at least one example of at least one number",
        got=_shapes(inputs),
        fix="give the model a batch that is not empty",
    )


def refuse_empty_operations(call: Callable[..., Any], inputs: PyTree) -> None:
    """The check of Linen layers for other models, which have operations and no layer names."""
    if _is_empty(inputs):
        raise _no_inputs(inputs)
    for name, before, after in _operations(jax.make_jaxpr(call)(inputs).jaxpr):
        if 0 in after:
            raise _empty_layer((name,), f"inputs of shape {before}, outputs of shape {after}")


def _operations(jaxpr: Any) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        # Only these: other operations, random bits among them, may well use empty arrays.
        if name in ("conv_general_dilated", "dot_general") or name.startswith("reduce_window"):
            yield name, equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _operations(inner)
