"""Rules that place the leaves of a state on a mesh: `rule(path, shape, mesh) -> PartitionSpec`.

A rule sees every leaf of the `TrainState`, the optimizer's moments included, so moments and
averages land where their parameters do.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from jax.sharding import Mesh, PartitionSpec

from jdl.core.check import error, nearest

Rule = Callable[[str, tuple[int, ...], Mesh], PartitionSpec]


def replicated() -> Rule:
    """Every device holds everything: plain data parallelism."""
    return lambda path, shape, mesh: PartitionSpec()


def fsdp(axis: str = "data", smallest: int = 2**10) -> Rule:
    """Split the largest dimension that the axis divides (Rajbhandari et al. 2020, "ZeRO").

    Leaves with fewer than `smallest` numbers stay whole: moving them costs more than they weigh.

    >>> from jdl.parallel.mesh import mesh
    >>> import jax
    >>> tuple(fsdp()("params/dense/kernel", (30, 8000), mesh(data=len(jax.devices()))))
    (None, 'data')
    """

    def rule(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        if axis not in mesh.shape:
            raise error(
                f"fsdp({axis!r})",
                expected=f"an axis of the mesh {dict(mesh.shape)}",
                got=repr(axis),
                fix=nearest(axis, mesh.axis_names),
            )
        size = mesh.shape[axis]
        fitting = [d for d in range(len(shape)) if shape[d] % size == 0]
        count = 1
        for n in shape:
            count *= n
        if not fitting or count < smallest:
            return PartitionSpec()
        largest = max(fitting, key=lambda d: shape[d])
        return PartitionSpec(*(axis if d == largest else None for d in range(largest + 1)))

    return rule


def regex(rules: Sequence[tuple[str, PartitionSpec]], otherwise: Rule | None = None) -> Rule:
    """The spec of the first pattern found in a leaf's path; `otherwise` (replicated) for the rest.

    >>> rule = regex([("attention/.*/kernel", PartitionSpec(None, "model"))])
    >>> tuple(rule("params/attention/query/kernel", (8, 8), None))
    (None, 'model')
    """
    rest = otherwise or replicated()

    def rule(path: str, shape: tuple[int, ...], mesh: Any) -> PartitionSpec:
        for pattern, spec in rules:
            if re.search(pattern, path):
                return spec
        return rest(path, shape, mesh)

    return rule
