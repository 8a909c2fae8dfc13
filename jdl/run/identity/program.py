"""The identity of a traced program: what it computes, without names, shardings and devices.

The equations of the program are hashed in order. Constants are listed, in two groups: those of the
schedules, which depend on nothing but constants and step counters, and all others. If `epochs`
grows, the constants of the schedules may change with it.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jdl.core import tree
from jdl.run.identity.params import describe_params, sub_programs

LISTED_ELEMENTS = 64
"""Constants of up to so many elements are listed by value; larger ones by their hash."""

LISTED_CONSTANTS = 4096
"""A program with more constants records one hash for all of them."""

INLINED_CALLS = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call")
"""Calls that compute what their program computes."""

PLACEMENTS = ("sharding_constraint", "mesh_cast", "reshard")
"""Primitives that place an array and keep its values."""

Operand = int | core.Literal | np.ndarray


class Instruction(NamedTuple):
    """An equation of a schedule, over numbered values and constants."""

    primitive: Any
    params: dict[str, Any]
    operands: tuple[tuple[str, int], ...]
    """("value", number) or ("constant", place in `Program.schedule_arrays`)."""
    results: tuple[int, ...]


@dataclass
class Program:
    """What a traced function computes.

    Two functions that compute the same have the same `structure`, `constants` and `schedule`.
    """

    structure: str = ""
    """Hash of the primitives, their parameters, shapes and connections."""
    constants: list[Any] = field(default_factory=list)
    """Constants that are combined with data or weights, in order."""
    schedule: list[Any] = field(default_factory=list)
    """Constants of the schedules, in order: combined with step counters and each other only."""
    schedule_arrays: list[np.ndarray] = field(default_factory=list)
    counters: dict[int, int] = field(default_factory=dict)
    """Inputs that count steps: their place among the inputs, by the number of the value."""
    instructions: list[Instruction] = field(default_factory=list)
    leaving: list[int] = field(default_factory=list)
    """Values of the schedule that the rest of the program uses."""

    def record(self) -> dict[str, Any]:
        """The program as it is stored in a run directory, as JSON."""
        return {
            "structure": self.structure,
            "constants": _shortened(self.constants),
            "schedule": _shortened(self.schedule),
        }


def describe(traced: core.ClosedJaxpr, counters: Sequence[bool] = ()) -> Program:
    """The identity of a traced function; `counters` marks the inputs that count steps.

    Names, source lines, shardings and addresses do not change it. Calls are inlined, so `jit`
    around a part does not change it either. Constants count with type, shape and bytes.

    >>> def at(rate):
    ...     return describe(jax.make_jaxpr(lambda w, g: w - rate * g)(1.0, 1.0))
    >>> at(0.1).record() == at(0.1).record(), at(0.1).structure == at(0.2).structure
    (True, True)
    >>> at(0.1).constants, at(0.2).constants
    ([0.10000000149011612], [0.20000000298023224])
    """
    writer = _Writer()
    inputs = [
        writer.new(is_schedule)
        for is_schedule in [*counters, *[False] * (len(traced.jaxpr.invars) - len(counters))]
    ]
    writer.program.counters = {
        number: place for place, number in enumerate(inputs) if number in writer.schedule_values
    }
    results = writer.write(traced.jaxpr, traced.consts, inputs)
    writer.line("return", [writer.use(operand, False) for operand in results])
    writer.program.structure = writer.hash.hexdigest()
    return writer.program


class _Writer:
    """Walks through a program once, numbers its values in order and hashes its equations."""

    def __init__(self) -> None:
        self.program = Program()
        self.hash = hashlib.sha256()
        self.schedule_values: set[int] = set()
        self._count = 0

    def line(self, *parts: Any) -> None:
        self.hash.update(f"{parts}\n".encode())

    def new(self, is_schedule: bool) -> int:
        """The number of a new value."""
        self._count += 1
        if is_schedule:
            self.schedule_values.add(self._count)
        return self._count

    def write(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Operand]) -> list[Operand]:
        """Hash the equations of a program with these inputs; returns its results."""
        known: dict[Any, Operand] = dict(zip(jaxpr.invars, inputs, strict=True))
        known |= {var: _host(const) for var, const in zip(jaxpr.constvars, consts, strict=True)}
        for equation in jaxpr.eqns:
            operands = [_operand(var, known) for var in equation.invars]
            results = self._equation(equation, operands)
            known |= dict(zip(equation.outvars, results, strict=True))
        return [_operand(var, known) for var in jaxpr.outvars]

    def use(self, operand: Operand, in_schedule: bool) -> str:
        """The text of an operand. Lists constants, and values that leave a schedule."""
        if isinstance(operand, int):
            if operand in self.schedule_values and not in_schedule:
                self.program.leaving.append(operand)
            return f"v{operand}"
        value = _host(operand)
        listed = self.program.schedule if in_schedule else self.program.constants
        listed.append(_described(value))
        if in_schedule:
            self.program.schedule_arrays.append(value)
        return f"{value.dtype}{list(value.shape)}"

    def _equation(self, equation: Any, operands: list[Operand]) -> list[Operand]:
        name = equation.primitive.name
        if name in PLACEMENTS:
            return operands[:1]
        inner = list(sub_programs(equation.params))
        if name in INLINED_CALLS and len(inner) == 1 and len(inner[0][1].invars) == len(operands):
            return self.write(inner[0][1], inner[0][2], operands)
        # A result of constants alone belongs to the schedule: it does not see data or weights.
        in_schedule = all(
            not isinstance(operand, int) or operand in self.schedule_values for operand in operands
        )
        used = [self.use(operand, in_schedule) for operand in operands]
        results = [self.new(in_schedule) for _ in equation.outvars]
        shapes = [f"{var.aval.dtype}{list(var.aval.shape)}" for var in equation.outvars]
        self.line(name, describe_params(equation.params), used, results, shapes)
        if in_schedule and not inner:
            self._note(equation, operands, results)
        for label, jaxpr, consts in inner:
            self.line("begin", label)
            within = self._inner_inputs(equation, label, jaxpr, operands)
            self.line("end", [self.use(o, False) for o in self.write(jaxpr, consts, within)])
        return list(results)

    def _note(self, equation: Any, operands: list[Operand], results: list[int]) -> None:
        place = len(self.program.schedule_arrays) - sum(
            not isinstance(operand, int) for operand in operands
        )
        named = []
        for operand in operands:
            is_value = isinstance(operand, int)
            named.append(("value", operand) if is_value else ("constant", place))
            place += not is_value
        self.program.instructions.append(
            Instruction(equation.primitive, equation.params, tuple(named), tuple(results))
        )

    def _inner_inputs(
        self, equation: Any, label: str, jaxpr: Any, operands: list[Operand]
    ) -> list[Operand]:
        """The inputs of a branch or of a loop's body; what a loop changes is new in it."""
        name, params = equation.primitive.name, equation.params
        if name == "cond":
            return operands[1:]
        if name == "scan":
            kept = operands[: _count_scan_constants(params)]
        elif name == "while":
            first = params["cond_nconsts"]
            before, count = (0, first) if label == "cond_jaxpr" else (first, params["body_nconsts"])
            kept = operands[before : before + count]
        elif len(jaxpr.invars) == len(operands):
            return operands
        else:
            kept = []
        return [*kept, *(self.new(False) for _ in jaxpr.invars[len(kept) :])]


def _count_scan_constants(params: Mapping[str, Any]) -> int:
    """How many inputs of a scan are the same in each of its steps."""
    if "num_consts" in params:
        return params["num_consts"]
    return len(params["ft_in"].unpack()[0])  # jax 0.12: constants, carry and slices as trees


def schedule_change(
    program: Program, inputs: Sequence[Any], before: Sequence[Any]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """What the schedules of a program give at these `inputs`: (with the constants `before`, now).

    Only values that differ, of those that the rest of the program uses. What a loop or a branch
    computes as a whole is left out.
    """
    pairs = list(zip(program.schedule, before, strict=True))
    changed = {place for place, (now, was) in enumerate(pairs) if now != was}
    needed = _needed(program, changed)
    old = [
        np.asarray(was, own.dtype).reshape(own.shape) if place in changed else own
        for place, (own, (_, was)) in enumerate(zip(program.schedule_arrays, pairs, strict=True))
    ]
    counters = {number: inputs[place] for number, place in program.counters.items()}

    @jax.jit  # one small program: operation by operation each would be one
    def both(counters: Any) -> list[tuple[Any, Any]]:
        then = _evaluate(needed, counters, old)
        now = _evaluate(needed, counters, program.schedule_arrays)
        leaving = [n for n in dict.fromkeys(program.leaving) if n in then and n not in counters]
        return [(then[n], now[n]) for n in leaving if tree.is_float(now[n])]

    pairs = jax.device_get(both(jax.device_get(counters)))
    return [(was, now) for was, now in pairs if not np.array_equal(was, now)]


def _needed(program: Program, changed: set[int]) -> list[Instruction]:
    """The instructions behind every value that leaves and depends on a changed constant."""
    touched: set[int] = set()
    for _, _, operands, results in program.instructions:
        if any(n in (changed if kind == "constant" else touched) for kind, n in operands):
            touched |= set(results)
    wanted, needed = touched & set(program.leaving), []
    for instruction in reversed(program.instructions):
        if wanted & set(instruction.results):
            needed.append(instruction)
            wanted |= {n for kind, n in instruction.operands if kind == "value"}
    return needed[::-1]


def _evaluate(
    instructions: Sequence[Instruction],
    counters: Mapping[int, Any],
    constants: Sequence[np.ndarray],
) -> dict[int, Any]:
    known = dict(counters)
    for primitive, params, operands, results in instructions:
        if all(kind == "constant" or number in known for kind, number in operands):
            values = [constants[n] if kind == "constant" else known[n] for kind, n in operands]
            found = primitive.bind(*map(jnp.asarray, values), **params)
            found = found if primitive.multiple_results else [found]
            known |= dict(zip(results, found, strict=True))
    return known


def _operand(var: Any, known: Mapping[Any, Operand]) -> Operand:
    return var if isinstance(var, core.Literal) else known[var]


def _host(constant: Any) -> np.ndarray:
    """A constant of a program as numpy; keys as their data."""
    value = constant.val if isinstance(constant, core.Literal) else constant
    if isinstance(value, np.ndarray):
        return value
    if tree.is_key(value):
        return np.asarray(jax.random.key_data(value))
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return np.asarray(value.addressable_shards[0].data)
    aval: Any = constant.aval if isinstance(constant, core.Literal) else None
    return np.asarray(value, aval and aval.dtype)


def _described(value: np.ndarray) -> Any:
    """A constant as JSON can hold it: small ones by value, others by their hash."""
    if value.size <= LISTED_ELEMENTS:
        if value.dtype.kind in "biu":
            return value.tolist()
        if tree.is_float(value):
            return _finite_or_text(value.astype(np.float64).tolist())
    return "sha256 " + hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()


def _finite_or_text(value: Any) -> Any:
    """The values of a list, with nan and infinity as text: nan is not equal to itself."""
    if isinstance(value, list):
        return [_finite_or_text(part) for part in value]
    return value if math.isfinite(value) else str(value)


def _shortened(constants: list[Any]) -> list[Any]:
    if len(constants) <= LISTED_CONSTANTS:
        return constants
    return ["sha256 " + hashlib.sha256(repr(constants).encode()).hexdigest()]


def traced_pair(
    init: Any, step: Any, key: Any, batch: Any
) -> Iterator[tuple[str, core.ClosedJaxpr, list[bool]]]:
    """The traces of a learner's `init` and `step`, and which inputs of each count steps."""
    traced, state = jax.make_jaxpr(init, return_shape=True)(key, batch)
    yield "init", traced, []
    counts = jax.tree.map(lambda _: False, state).replace(
        step=True, opt_state=jax.tree.map(_is_counter, state.opt_state)
    )
    yield "step", jax.make_jaxpr(step)(state, batch), jax.tree.leaves(counts)


def _is_counter(leaf: Any) -> bool:
    """Whether a leaf of an optimizer's state may count steps: a whole number, one a member."""
    return not tree.is_key(leaf) and leaf.dtype.kind in "iu" and len(leaf.shape) <= 1
