"""Checks of a Flax module that is to become a `Model`: its kind, its arguments, its variables."""

import inspect
import re
from collections.abc import Callable, Collection
from typing import Any

from flax import linen as nn

from jdl.core.errors import InputError, error
from jdl.core.nouns import check_callable, describe, kind_of

# Names of the training flag, and its value in training.
TRAIN_FLAGS = {
    "train": True,
    "training": True,
    "deterministic": False,
    "use_running_average": False,
}


def check_linen_module(module: Any) -> None:
    """Raise `InputError` unless `module` is a Linen module that is called with the inputs alone."""
    if not isinstance(module, nn.Module):
        fix = "pass a module, such as jdl.from_linen(jdl.models.MLP(features=(64,), outputs=10))"
        if kind_of(module) == "Linen class":
            fix = f"call the class: jdl.from_linen({module.__name__}(...))"
        elif kind_of(module).startswith("NNX"):
            fix = "pass jdl.from_nnx(lambda rngs: MyModule(..., rngs=rngs))"
        elif callable(module):
            fix = "pass jdl.from_functions(init, apply) for plain functions"
        what, expected = "from_linen: module", "an instance of a Linen module"
        raise error(what, expected=expected, got=describe(module), fix=fix)
    if not any("__call__" in vars(base) for base in type(module).__mro__):
        raise error(
            f"from_linen: {type(module).__name__}",
            expected="a module with a method __call__",
            got="none",
            fix="give it __call__(self, x), or use jdl.from_functions(init, apply)",
        )
    names = required_arguments(type(module).__call__)
    if len(names) != 1:
        flags = [f for f in inspect.signature(type(module).__call__).parameters if f in TRAIN_FLAGS]
        raise _arguments(f"from_linen: {type(module).__name__}", names, _linen_fix(names, flags))


def check_functions(init: Any, apply: Any) -> None:
    """Raise `InputError` unless both are plain functions."""
    example = "pass jdl.from_functions(lambda key, x: params, lambda params, x: outputs)"
    for value, expected in ((init, "init(key, inputs)"), (apply, "apply(params, inputs)")):
        what = f"from_functions: {expected.partition('(')[0]}"
        if kind_of(value).endswith(("module", "class")):
            fix = "pass jdl.from_linen(module) or jdl.from_nnx(build)"
            raise error(what, expected=f"a function {expected}", got=describe(value), fix=fix)
        check_callable(value, what, f"a function {expected}", example)


def check_build(build: Any) -> None:
    """Raise `InputError` unless `build` is a function that can build an NNX module."""
    name = type(build).__name__
    fix = f"pass a function: jdl.from_nnx(lambda rngs: {name}(..., rngs=rngs))"
    if kind_of(build).startswith("Linen"):
        fix = "pass jdl.from_linen(module)"
    elif callable(build) and kind_of(build) != "NNX module":
        return
    elif kind_of(build) != "NNX module":
        fix = "pass a function: jdl.from_nnx(lambda rngs: MyModule(..., rngs=rngs))"
    expected = "a function build(rngs) -> module"
    raise error("from_nnx: build", expected=expected, got=describe(build), fix=fix)


def check_nnx_module(module: Any) -> None:
    """Raise `InputError` unless `build` returned an NNX module that takes the inputs alone."""
    if kind_of(module) != "NNX module":
        fix = "return an NNX module from build"
        expected = "an NNX module"
        raise error("from_nnx: build(rngs)", expected=expected, got=describe(module), fix=fix)
    name = type(module).__name__
    names = required_arguments(type(module).__call__) if callable(module) else []
    if len(names) != 1:
        rest = "".join(f", {argument}=..." for argument in names[1:])
        fix = f"subclass it: class Own({name}) with __call__(self, x) that returns "
        fix += f"super().__call__(x{rest})"
        raise _arguments(f"from_nnx: {name}", names, fix)


def check_created(before: Collection[Any], after: Collection[Any], name: str) -> None:
    """Raise `InputError` for variables that a module creates in its call.

    They would be lost: a `Model` hands on the variables that `init` returned.
    """
    created = [path for path in after if path not in before]
    if created:
        variable = "/".join(map(str, created[0]))
        raise error(
            f"from_nnx: {name}",
            expected="no new variables in __call__, since a model keeps those of its __init__",
            got=f"the variable {variable}, created in __call__",
            fix=f"create {variable} in __init__, or return it with the outputs, as "
            f'{{"outputs": x, "{created[0][-1]}": value}}, and read it in the loss',
        )


def required_arguments(call: Callable[..., Any]) -> list[str]:
    """The arguments that a method needs besides self and the training flag.

    >>> required_arguments(lambda self, x, lengths, deterministic: x)
    ['x', 'lengths']
    """
    parameters = list(inspect.signature(call).parameters.values())[1:]
    variable = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return ["inputs"]
    names = [p.name for p in parameters if p.kind not in variable and p.name not in TRAIN_FLAGS]
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in variable]
    return [name for index, name in enumerate(names) if name in needed or index == 0]


def _linen_fix(names: list[str], flags: list[str]) -> str:
    """Two functions that call a module of several arguments."""
    inputs = "".join(f', x["{name}"]' for name in names)
    evaluation = "".join(f", {flag}={not TRAIN_FLAGS[flag]}" for flag in flags)
    training = "".join(
        f", {flag}={'train' if TRAIN_FLAGS[flag] else 'not train'}" for flag in flags
    )
    more = ", *, key, train" if flags else ""
    rngs = ', rngs={"dropout": key} if train else {}' if flags else ""
    entries = ", ".join(f'"{name}": batch["{name}"]' for name in names)
    return (
        f'jdl.from_functions(lambda key, x: module.init(key{inputs}{evaluation})["params"], '
        f'lambda params, x{more}: module.apply({{"params": params}}{inputs}{training}{rngs})), '
        f"and inputs=lambda batch: {{{entries}}} in the task"
    )


def _arguments(what: str, names: list[str], fix: str) -> InputError:
    return error(
        what,
        expected="a module that is called with one argument, the inputs, and a training flag",
        got=f"__call__ with the arguments {', '.join(names) or 'none'}",
        fix=fix,
    )


def unbound_axis(cause: NameError) -> Exception:
    """The error of a module that sums over a device axis which nothing maps."""
    found = re.search(r"axis name:? ['\"]?(\w+)", str(cause))
    if found is None:
        return cause
    axis = found.group(1)
    return error(
        f"axis_name {axis!r} of the module",
        expected="a step mapped over a device axis of this name",
        got="a step without this axis",
        fix="build the module without axis_name: under jit and jdl.shard the statistics already "
        f'cover the whole batch; or use jdl.pmap(learner, axis="{axis}")',
    )


def draws_in_evaluation() -> InputError:
    """The error of a module that draws random numbers although it does not train."""
    return error(
        "key",
        expected="a model that draws random numbers in training only, or a random key",
        got="no key: evaluation and prediction are deterministic",
        fix="make the module deterministic unless train=True; or draw with a fixed key: "
        "jdl.from_functions(lambda key, x: module.init(key, x), lambda variables, x: "
        'module.apply(variables, x, rngs={"dropout": jax.random.key(0)})); '
        "calling apply yourself, pass key=jax.random.key(0)",
    )
