"""Recompilations, and the argument that caused each."""

import logging
from collections.abc import Mapping
from typing import Any

import jax

from jdl.core import flops, tree
from jdl.core.flops import Flops
from jdl.run.telemetry.clock import TimeBreakdown

log = logging.getLogger("jdl")
MAX_WARNINGS = 5
"""Most warnings for one program; further compilations are only counted."""
_LEAVES = 4
Signature = dict[str, str]


class CompilationMonitor:
    """A jitted function that logs a warning with the reason when it is compiled again.

    `names` are the names of its arguments, for the message. Shapes, types and shardings of the
    leaves are compared, only after JAX has compiled.
    """

    def __init__(self, call: Any, clock: TimeBreakdown, *names: str):
        self.call = call
        self._clock, self._names = clock, names
        self._program = f"jit({call.__name__})"
        self._seen: list[Signature] = []
        self._shapes: tuple[Any, ...] | None = None

    def __call__(self, *args: Any) -> Any:
        """Call the function."""
        before = self._clock.compiled[self._program]
        results = self.call(*args)
        if self._clock.compiled[self._program] != before:
            self._explain(args)
        return results

    def is_new(self, *args: Any) -> bool:
        """Whether these arguments need a compilation."""
        return self._signature(args) not in self._seen

    def compile(self, *args: Any) -> None:
        """Compile for these arguments or shapes without running; calls then use the program."""
        self.call.lower(*args).compile()
        self._explain(args)

    def flops(self) -> Flops | None:
        """The FLOPs of matrix products in one step of the newest program; None before the first.

        Includes rematerialization and the check for NaN (two FLOPs for each value of the state).
        """
        if self._shapes is None:
            return None
        return flops.of_jaxpr(self.call.trace(*self._shapes).jaxpr)

    def _signature(self, args: tuple[Any, ...]) -> Signature:
        return signature(dict(zip(self._names, args, strict=True)))

    def _explain(self, args: tuple[Any, ...]) -> None:
        # A donated array is deleted by now, but still has its shape, type and sharding.
        now = self._signature(args)
        self._shapes = jax.tree.map(_shape, args)
        if self._seen:
            # Compare with the most similar arguments so far, the latest of equally similar ones.
            changed = min((differences(old, now) for old in reversed(self._seen)), key=len)
            self._clock.recompiled.append({"program": self._program, "changed": changed})
            if len(self._seen) <= MAX_WARNINGS:
                is_last = len(self._seen) == MAX_WARNINGS
                last = "; further recompilations are counted, not logged" if is_last else ""
                log.warning("%s%s", describe_recompilation(self._program, changed), last)
        self._seen.append(now)


def signature(values: Mapping[str, Any]) -> Signature:
    """What a program is compiled for: type, shape and, if committed, sharding of each leaf.

    >>> signature({"batch": {"x": jax.numpy.ones((8, 3))}})
    {'batch/x': 'float32[8,3]'}
    """
    return {name: _described(leaf) for name, leaf in tree.flatten(dict(values)).items()}


def differences(old: Signature, new: Signature) -> list[str]:
    """The leaves that differ, each as a phrase.

    >>> differences({"x": "int32[4]", "y": "int32[]"}, {"x": "int32[5]"})
    ['x was int32[4] and is int32[5]', 'y was int32[] and is gone']
    """
    names = dict.fromkeys([*old, *new])
    pairs = {name: (old.get(name, "absent"), new.get(name, "gone")) for name in names}
    return [f"{name} was {was} and is {now}" for name, (was, now) in pairs.items() if was != now]


def _described(leaf: Any) -> str:
    kind = jax.typeof(leaf)
    weak = " of weak type" if getattr(kind, "weak_type", False) else ""
    return f"{kind.dtype}[{','.join(map(str, kind.shape))}]{weak}{_place(leaf)}"


def _place(leaf: Any) -> str:
    """The device or sharding of a leaf; empty if it can go wherever the program runs."""
    sharding = _required_sharding(leaf)
    if sharding is None:
        return ""
    devices, spec = sharding.device_set, getattr(sharding, "spec", None)
    name = str(next(iter(devices))) if len(devices) == 1 else f"{len(devices)} devices"
    return f" on {name}" + ("" if spec is None else f" as {spec}")


def _shape(leaf: Any) -> Any:
    kind = jax.typeof(leaf)
    return jax.ShapeDtypeStruct(
        kind.shape, kind.dtype, sharding=_required_sharding(leaf), weak_type=kind.weak_type
    )


def _required_sharding(leaf: Any) -> Any:
    """The sharding of a committed array or of a shape."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf.sharding
    return leaf.sharding if isinstance(leaf, jax.Array) and leaf.committed else None


def describe_recompilation(program: str, changed: list[str]) -> str:
    """A recompilation in one line, with the first leaves that changed.

    >>> describe_recompilation("jit(step)", ["batch/x was float32[8,3] and is float32[8,4]"])
    'jit(step) was compiled again: batch/x was float32[8,3] and is float32[8,4]'
    """
    shown = "; ".join(changed[:_LEAVES]) or "its arguments look the same"
    more = f"; and {len(changed) - _LEAVES} more" if len(changed) > _LEAVES else ""
    return f"{program} was compiled again: {shown}{more}"
