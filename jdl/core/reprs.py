"""Short texts of records, for a terminal and a notebook."""

from collections.abc import Mapping
from typing import Any


def describe_fields(record: Any, values: Mapping[str, Any]) -> str:
    """A record with the given fields, functions by their names; empty fields are left out.

    >>> describe_fields(object(), {"init": describe_fields, "info": None, "every": 2})
    'object(init=describe_fields, every=2)'
    """
    fields = [f"{name}={_text(value)}" for name, value in values.items() if value is not None]
    return f"{type(record).__name__}({', '.join(fields)})"


def describe_arrays(arrays: Any) -> str:
    """Arrays by name with dtype and shape.

    >>> import numpy as np
    >>> describe_arrays({"x": np.zeros((4, 2)), "y": np.zeros(4, int)})
    'x float64[4, 2], y int64[4]'
    """
    if not isinstance(arrays, Mapping):
        return type(arrays).__name__
    return ", ".join(
        f"{name} {value.dtype}{list(value.shape)}"
        if hasattr(value, "dtype") and hasattr(value, "shape")
        else f"{name} {type(value).__name__}"
        for name, value in arrays.items()
    )


def _text(value: Any) -> str:
    if isinstance(value, tuple) and value and all(map(callable, value)):
        return type(value).__name__  # an optimizer: a tuple of functions
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return repr(value)
