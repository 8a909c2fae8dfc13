"""Layers whose kernel is divided by its largest singular value (Miyato et al. 2018)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jdl.models.layers import primitives

FIRST_ITERATIONS = 15


class _Spectral(nn.Module):
    """A layer that divides its kernel by its largest singular value."""

    def param(self, name: str, init_fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the parameter as the layer uses it, with the kernel normalised."""
        value = super().param(name, init_fn, *args, **kwargs)
        return self._normalised(value) if name == "kernel" else value

    def _normalised(self, kernel: jax.Array) -> jax.Array:
        matrix = kernel.reshape(-1, kernel.shape[-1])

        def start() -> jax.Array:
            vector = jax.random.normal(self.make_rng("params"), matrix.shape[:1], matrix.dtype)
            return jax.lax.fori_loop(
                0, FIRST_ITERATIONS, lambda _, left: power_iteration(matrix, left)[0], vector
            )

        vector = self.variable("spectral", "vector", start)
        left, right = power_iteration(matrix, vector.value)
        if self.is_mutable_collection("spectral") and not self.is_initializing():
            vector.value = left
        # The vectors stay float32 when the kernel is rounded to bfloat16, and so does the product.
        return kernel / (left @ matrix @ right).astype(kernel.dtype)


class SpectralDense(_Spectral, primitives.Dense):
    r"""A `Dense` layer with the kernel $W / \sigma(W)$; inputs (..., n), outputs (..., features).

    The largest singular value $\sigma$ is estimated by one power iteration per call, from the
    vector that the last training call stored in the model state `spectral`. Gradients pass through
    the division and treat the singular vectors as constants.
    """


class SpectralConv(_Spectral, primitives.Conv):
    """A convolution with a kernel normalised as in `SpectralDense`, as a matrix (h w in, out)."""


def power_iteration(matrix: jax.Array, left: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One power iteration: unit vectors (n,) and (m,) near the first singular pair of (n, m).

    No gradient passes through them.

    >>> left, right = power_iteration(jnp.diag(jnp.array([3.0, 0.0])), jnp.ones(2))
    >>> print(left, right)
    [1. 0.] [1. 0.]
    """
    matrix = jax.lax.stop_gradient(matrix)
    right = _unit(left @ matrix)
    return _unit(matrix @ right), right


def _unit(vector: jax.Array) -> jax.Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-12)
