"""The parameters of a primitive as text that is the same in every process."""

import dataclasses
import enum
import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jax.extend import core
from jax.sharding import AbstractMesh, Mesh, PartitionSpec, Sharding

NAMES_AND_PLACES = frozenset(
    """
    name name_and_src_info debug debug_info source_info ctx_mesh context_mesh mesh resource_env
    sharding out_sharding in_shardings out_shardings unconstrained_dims layout in_layouts
    out_layouts donated_invars inline keep_unused compiler_options_kvs
    """.split()  # noqa: SIM905
)
"""Parameters that name things or say where they lie, and change no value."""

DERIVATIVES = frozenset(
    ("jvp", "jvp_jaxpr_fun", "jvp_jaxpr_thunk", "fwd", "fwd_jaxpr_thunk", "bwd")
)
"""Rules of custom derivatives: where a program takes the derivative, its trace has the result."""

ADDRESS = re.compile(r"\s*(object)? at 0x[0-9a-fA-F]+")


def sub_programs(params: Mapping[str, Any]) -> Iterator[tuple[str, core.Jaxpr, list[Any]]]:
    """The programs within an equation, in order of their names, with their constants."""
    for name in sorted(params):
        value = params[name]
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, core.ClosedJaxpr):
                yield name, part.jaxpr, part.consts
            elif isinstance(part, core.Jaxpr):
                yield name, part, [np.zeros(0)] * len(part.constvars)


def describe_params(params: Mapping[str, Any]) -> str:
    """The parameters that decide what is computed, sorted by name.

    >>> describe_params({"shape": (2, 3), "name": "mine", "bit_width": 32})
    'bit_width=32 shape=(2,3,)'
    """
    return " ".join(
        f"{name}={_text(value)}"
        for name, value in sorted(params.items())
        if name not in NAMES_AND_PLACES and name not in DERIVATIVES
    )


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    if isinstance(value, core.ClosedJaxpr | core.Jaxpr):
        return "program"  # hashed on its own
    if isinstance(value, Mesh | AbstractMesh | Sharding | PartitionSpec):
        return "place"
    if isinstance(value, enum.Enum):
        return str(value)
    if isinstance(value, tuple | list):
        return "(" + "".join(f"{_text(part)}," for part in value) + ")"
    if isinstance(value, set | frozenset):
        return "{" + ",".join(sorted(map(_text, value))) + "}"
    if isinstance(value, Mapping):
        return "{" + ",".join(sorted(f"{k}:{_text(v)}" for k, v in value.items())) + "}"
    if isinstance(value, np.ndarray | np.generic):
        array = np.ascontiguousarray(value)
        return f"{array.dtype}{array.shape}{hashlib.sha256(array.tobytes()).hexdigest()}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return f"{type(value).__name__}({describe_params(dict(fields))})"
    return _function(value) if callable(value) else ADDRESS.sub("", repr(value))


def _function(call: Callable[..., Any]) -> str:
    """A function by its name and code (a callback to Python is no part of the trace)."""
    if isinstance(call, functools.partial):
        return f"partial({_function(call.func)},{_text(call.args)},{_text(call.keywords)})"
    code = getattr(call, "__code__", None)
    name = f"{getattr(call, '__module__', '')}.{getattr(call, '__qualname__', type(call).__name__)}"
    if code is None:
        return name
    constants = [c for c in code.co_consts if isinstance(c, bool | int | float | str | bytes)]
    text = repr((code.co_code, code.co_names, constants))
    return f"{name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"
