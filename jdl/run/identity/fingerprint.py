"""What a run directory records of a run, so that a resume can tell whether it is the same run."""

import dataclasses
import platform as python_platform
from collections.abc import Mapping
from typing import Any

import jax

from jdl.core import tree
from jdl.core.lowering import platform
from jdl.core.types import Batch, Learner
from jdl.core.version import __version__, package_version
from jdl.data.feed import Feed
from jdl.run.identity.data import describe_data
from jdl.run.identity.program import Program, describe, traced_pair

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
"""Packages that decide what a program is traced to."""


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """The data and the program of a run."""

    steps: int
    """Steps of the whole run, which schedules may depend on."""
    data: Mapping[str, Any]
    state: Mapping[str, str]
    """Type and shape of every leaf of the learner's state."""
    programs: Mapping[str, Program]
    """What `init` and `step` compute; empty where nothing can be traced."""

    def record(self) -> dict[str, Any]:
        """The fingerprint as JSON can hold it, with the versions that it holds for."""
        return {
            "steps": self.steps,
            "versions": versions(),
            "data": dict(self.data),
            "state": dict(self.state),
            "program": {name: program.record() for name, program in self.programs.items()},
        }


def versions() -> dict[str, str | None]:
    """The versions and the platform at which two programs can be compared."""
    return {
        "jdl": __version__,
        "python": ".".join(python_platform.python_version_tuple()[:2]),
        **{name: package_version(name) for name in PACKAGES},
        "platform": platform(),
    }


def take_fingerprint(
    learner: Learner, feed: Feed, valid: Mapping[str, Any] | None, steps: int
) -> Fingerprint:
    """The fingerprint of a run: hashes of its data, and of the traces of `init` and `step`.

    The learner is traced on one device, with abstract inputs: a mesh, or the number of devices, is
    no part of it.
    """
    batch = feed.batch(0)
    return Fingerprint(
        steps=steps,
        data=describe_data(feed, valid),
        state=describe_state(learner, batch),
        programs=describe_learner(learner, batch),
    )


def describe_state(learner: Learner, batch: Batch) -> dict[str, str]:
    """Type and shape of every leaf that the learner trains with, by its path."""
    leaves = tree.flatten(jax.eval_shape(learner.init, tree.any_key(), batch))
    return {name: f"{leaf.dtype} {list(leaf.shape)}" for name, leaf in leaves.items()}


def describe_learner(learner: Learner, batch: Batch) -> dict[str, Program]:
    """The programs of `init` and `step`; none where JAX runs them without tracing."""
    config: Any = jax.config
    if config.jax_disable_jit:  # loops and calls would be unrolled
        return {}
    one = without_mesh(learner, batch)
    traces = traced_pair(one.init, one.step, tree.any_key(), batch)
    return {name: describe(traced, counters) for name, traced, counters in traces}


def without_mesh(learner: Learner, batch: Batch) -> Learner:
    """The learner that was spread over devices, where nothing but that was done to it."""
    inner = learner.info.unsharded
    if inner is None:
        return learner
    is_same = describe_state(learner, batch) == describe_state(inner, batch)
    return without_mesh(inner, batch) if is_same else learner
