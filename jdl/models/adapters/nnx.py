"""The adapter for NNX modules, in a file of its own: importing NNX takes a quarter of a second."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jdl.core.types import Key, Model, PyTree
from jdl.models.adapters.check_module import check_build, check_created, check_nnx_module
from jdl.models.adapters.linen import needs_key, refuse_empty_operations, train_flags


def from_nnx(build: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """Convert an NNX module to a `Model`, from a function that builds it.

    `build(rngs) -> module` runs inside compiled functions and must depend on `rngs` only. The
    module takes one argument, the inputs; shapes are those of the module. `params` is a dict of its
    `nnx.Param` values. `model_state` is a dict of its other variables, by kind (`batch_stats`, ...)
    and then by path, without random streams: `apply` sets those from its key. `apply` calls
    `train()` or `eval()` on the module first.

    Raises `InputError` for a module of several arguments or one that creates variables in its call,
    at `init` for an operation with outputs of size zero, and at `apply` in
    training without a key, if the module has random streams.

    >>> from jdl.core import tree
    >>> model = from_nnx(lambda rngs: nnx.Linear(2, 3, rngs=rngs))
    >>> params, model_state = model.init(jax.random.key(0), jnp.ones((5, 2)))
    >>> {name: leaf.shape for name, leaf in tree.flatten(params).items()}
    {'bias': (3,), 'kernel': (2, 3)}
    """

    check_build(build)

    @functools.cache
    def plan() -> _Plan:
        module = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
        check_nnx_module(module)
        graph, *parts = nnx.split(module, nnx.Param, nnx.RngState, ...)
        return _Plan(graph, *(list(nnx.to_flat_state(part)) for part in parts))

    @jax.jit
    def create(key: Key) -> tuple[PyTree, PyTree]:
        return _read(build(nnx.Rngs(key)), plan())

    def init(key: Key, inputs: PyTree) -> tuple[PyTree, PyTree]:
        params, model_state = create(key)
        refuse_empty_operations(functools.partial(apply, params, model_state), inputs)
        return params, model_state

    def apply(
        params: PyTree,
        model_state: PyTree,
        inputs: PyTree,
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[PyTree, PyTree]:
        if train and key is None and plan().random:
            raise needs_key()
        module = _build_module(plan(), params, model_state, key)
        if train:
            module.train()
        else:
            module.eval()
        flags = train_flags(type(module).__call__)
        outputs = module(inputs, **flags(train))  # pyright: ignore[reportCallIssue]
        _check_variables(module, plan())
        return outputs, (_read(module, plan())[1] if train else model_state)

    return Model(init, apply)


class _Plan(NamedTuple):
    """An NNX module without its values: the graph, and (path, variable) pairs of each kind."""

    graph: Any
    params: list[tuple[Any, Any]]
    random: list[tuple[Any, Any]]
    rest: list[tuple[Any, Any]]


def _check_variables(module: nnx.Module, plan: _Plan) -> None:
    """Refuse variables that the call has created; intermediate values are only diagnostics."""
    known = {path for path, _ in (*plan.params, *plan.random, *plan.rest)}
    state = nnx.to_flat_state(nnx.state(module))
    after = [path for path, variable in state if not isinstance(variable, nnx.Intermediate)]
    check_created(known, after, type(module).__name__)


def _read(module: nnx.Module, plan: _Plan) -> tuple[PyTree, PyTree]:
    """The params and model state of a module, without what its call has added."""
    _, params, _, rest = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return _nested(params, plan.params, _param_path), _nested(rest, plan.rest, _state_path)


def _nested(
    values: Any,
    variables: list[tuple[Any, Any]],
    state_path: Callable[[Any, Any], tuple[str, ...]],
) -> PyTree:
    by_path = dict(nnx.to_flat_state(values))
    result: dict[str, Any] = {}
    for path, variable in variables:
        *parents, name = state_path(path, variable)
        node = result
        for key in parents:
            node = node.setdefault(key, {})
        node[name] = by_path[path].get_value()
    return result


def _build_module(plan: _Plan, params: PyTree, model_state: PyTree, key: Key | None) -> nnx.Module:
    key = jax.random.key(0) if key is None else key
    pairs = [(path, _with_value(v, params, _param_path(path, v))) for path, v in plan.params]
    pairs += [(path, _with_value(v, model_state, _state_path(path, v))) for path, v in plan.rest]
    for index, (path, variable) in enumerate(plan.random):
        shape = variable.get_value().shape
        if isinstance(variable, nnx.RngKey):
            own = jax.random.fold_in(key, index)
            value = jax.random.split(own, shape) if shape else own
        else:
            value = jnp.zeros(shape, variable.get_value().dtype)
        pairs.append((path, variable.replace(value)))
    return nnx.merge(plan.graph, nnx.from_flat_state(pairs))


def _with_value(variable: Any, values: PyTree, path: tuple[str, ...]) -> Any:
    return variable.replace(functools.reduce(lambda node, key: node[key], path, values))


def _param_path(path: Any, variable: Any) -> tuple[str, ...]:
    return tuple(str(step) for step in path)


def _state_path(path: Any, variable: Any) -> tuple[str, ...]:
    kind = type(variable)
    # Linen's name, by which tasks recognise batch statistics.
    name = "batch_stats" if issubclass(kind, nnx.BatchStat) else kind.__name__.lower()
    return (name, *_param_path(path, variable))
