"""One leaf of a checkpoint: copy to the host, description, and copy back to its devices."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl.core import tree
from jdl.core.errors import error


def is_distributed(leaf: Any) -> bool:
    """Whether no process has all of a leaf, so that it cannot become a numpy array."""
    sharding = getattr(leaf, "sharding", None)
    return sharding is not None and not (
        sharding.is_fully_addressable or sharding.is_fully_replicated
    )


def to_host(leaf: Any) -> Any:
    """A copy on the host that shares no memory with the leaf."""
    if tree.is_key(leaf) and leaf.is_fully_addressable:
        data = jnp.asarray(np.array(jax.random.key_data(leaf)))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return leaf.copy() if is_distributed(leaf) or tree.is_key(leaf) else np.array(leaf)


def describe_type(leaf: Any) -> dict[str, Any]:
    """Type (`float32`, `key<fry>`, ...) and shape of an array, a shape or a Python number."""
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return {"dtype": str(leaf.dtype), "shape": list(leaf.shape)}


def describe(leaf: Any) -> dict[str, Any]:
    """Type, shape and SHA-256 of a leaf; the latter is None for a distributed leaf."""
    if is_distributed(leaf):
        return {**describe_type(leaf), "sha256": None}
    data = np.asarray(jax.random.key_data(leaf) if tree.is_key(leaf) else leaf)
    return {**describe_type(leaf), "sha256": hashlib.sha256(data.tobytes()).hexdigest()}


def restore_target(leaf: Any) -> Any:
    """The target for Orbax: numpy arrays, except for keys and distributed leaves."""
    if tree.is_key(leaf):
        sharding, local = leaf.sharding, jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        sharding = local if sharding is None or sharding.is_fully_addressable else sharding
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    if is_distributed(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return np.empty(leaf.shape, leaf.dtype) if leaf.size else None


def described_target(leaf: dict[str, Any]) -> Any:
    """What to ask Orbax for, by the description of a leaf alone."""
    if not leaf["dtype"].startswith("key<"):
        return np.empty(leaf["shape"], leaf["dtype"])
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    for impl in ("threefry2x32", "rbg", "unsafe_rbg"):
        dtype = jax.eval_shape(lambda impl=impl: jax.random.key(0, impl=impl)).dtype
        if str(dtype) == leaf["dtype"]:
            return jax.ShapeDtypeStruct(tuple(leaf["shape"]), dtype, sharding=here)
    raise error(
        "a key of the checkpoint",
        expected="an implementation of random numbers that JAX knows",
        got=leaf["dtype"],
        fix="import the package that brings it, or start a new run",
    )


def to_device(like: Any, value: Any) -> Any:
    """A loaded leaf as the type of the target's leaf and on its devices."""
    if is_distributed(like) or isinstance(like, np.ndarray):
        return value
    if not hasattr(like, "dtype"):
        return type(like)(value.item())
    if isinstance(like, np.generic):
        return value[()]
    if tree.is_key(like):
        data = _on_devices(np.array(jax.random.key_data(value)), like)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(value))
    if getattr(like, "weak_type", False) and not like.shape:
        return jnp.asarray(value.item())  # a strong type would promote, and compile, differently
    return _on_devices(value, like)


def _on_devices(value: np.ndarray, like: Any) -> jax.Array:
    """The array with the target's sharding; uncommitted if the target is."""
    sharding = like.sharding if getattr(like, "committed", True) else None
    if sharding is None:
        return jax.device_put(value, may_alias=False)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index].copy())
