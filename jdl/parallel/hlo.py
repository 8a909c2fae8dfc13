"""The collectives of a compiled program, read from its HLO text."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPERATION = re.compile(r"(?:^|[\s)}])([a-z][\w\-]*)\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation|branch_computations"
    r"|called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_TRIP_COUNT = re.compile(r'"?known_trip_count"?:\{"?n"?:"?(\d+)')


class Collective(NamedTuple):
    """The collectives of one kind that one device takes part in during one step."""

    kind: str
    count: int
    bytes: int
    """Sum of the sizes of the whole arrays that are gathered, summed or scattered."""
    loops: int = 0
    """How many of them are in loops of unknown length; these were counted once."""


@dataclass
class _Computation:
    name: str
    sizes: dict[str, int] = field(default_factory=dict)
    collectives: list[tuple[str, int, str]] = field(default_factory=list)
    """Kind, bytes, and an identity that parts of the same collective share."""
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Names of the computations it calls, and how often: a number, or the name of a condition."""
    constants: dict[str, str] = field(default_factory=dict)
    bound: float = math.nan
    """The trip count, if this is the condition of a loop that counts from zero; else NaN."""


def collectives(text: str) -> tuple[Collective, ...]:
    """Count the collectives of a program, given `jax.jit(f).lower(...).compile().as_text()`.

    A collective in a loop counts once for each iteration. The trip count comes from the compiler,
    or from a condition that counts from zero to a constant, as a scan has. A pair of start and done
    counts once.
    """
    computations, entry = _read(text)
    seen: dict[tuple[str, str], tuple[int, float]] = {}
    for name, times in _executions(computations, entry):
        for kind, size, identity in computations[name].collectives:
            seen.setdefault((kind, identity), (size, times))
    result = []
    for kind in KINDS:
        rows = [row for (which, _), row in seen.items() if which == kind]
        counts = [1 if math.isnan(times) else int(times) for _, times in rows]
        total = sum(size * n for (size, _), n in zip(rows, counts, strict=True))
        unknown = sum(math.isnan(times) for _, times in rows)
        if rows:
            result.append(Collective(kind, sum(counts), total, unknown))
    return tuple(result)


def _executions(computations: dict[str, _Computation], entry: str) -> Iterator[tuple[str, float]]:
    """Every computation that runs, and how often in total (NaN: unknown)."""
    waiting, seen = [(entry, 1.0)], set()
    while waiting:
        name, times = waiting.pop()
        if name in seen or name not in computations:
            continue
        seen.add(name)
        yield name, times
        for called, count in computations[name].calls:
            known = count.isdecimal()
            n = float(count) if known else getattr(computations.get(count), "bound", math.nan)
            waiting.append((called, times * n))


def _read(text: str) -> tuple[dict[str, _Computation], str]:
    computations: dict[str, _Computation] = {}
    current, entry = _Computation(""), ""
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = computations[head[2]] = _Computation(head[2])
            entry = head[2] if head[1] else entry
        elif instruction := _INSTRUCTION.match(line):
            _instruction(current, instruction[1], instruction[2])
    return computations, entry


def _instruction(into: _Computation, name: str, rest: str) -> None:
    operation = _OPERATION.search(rest)
    if operation is None:
        return
    kind = operation[1]
    into.sizes[name] = bytes_of(rest[: operation.start(1)])
    times = "1"
    if kind == "while":
        trip_count = _TRIP_COUNT.search(rest)
        condition = re.search(r"condition=%?([\w.\-]+)", rest)
        times = trip_count[1] if trip_count else condition[1] if condition else ""
    for called in _CALLED.findall(rest):
        into.calls += [(word, times) for word in re.findall(r"[\w.\-]+", called)]
    arguments = rest[operation.end() :].partition(")")[0]
    if kind == "constant":
        into.constants[name] = arguments
    elif kind == "compare" and "direction=LT" in rest:
        last = into.constants.get(re.findall(r"[\w.\-]+", arguments)[-1], "")
        into.bound = float(last) if last.isdecimal() else math.nan
    collective = kind.removesuffix("-start")
    if collective not in KINDS:
        return
    operands = sum(into.sizes.get(word, 0) for word in re.findall(r"[\w.\-]+", arguments))
    size = into.sizes[name]
    if kind != collective and rest.startswith("("):
        # The tuple of a start has operands and results; that of a permute also has semaphores.
        size = 0 if collective == "collective-permute" else size - operands
    if collective == "all-reduce" and into.name.startswith("all-reduce-scatter"):
        collective = "reduce-scatter"  # the TPU compiler writes it as an all-reduce and a slice
    into.collectives.append((collective, max(size, operands), _identity(name, rest)))


def _identity(name: str, rest: str) -> str:
    channel = re.search(r"channel_id=(\d+)", rest)
    chain = re.search(r'chain_id="(\d+)"', rest)
    # The TPU compiler splits a gather over several fusions, each with a copy of it.
    return f"{channel[1]} {chain[1]}" if channel and chain else name


def bytes_of(shape: str) -> int:
    """Bytes of an HLO array shape, or of all arrays in an HLO tuple shape.

    >>> bytes_of("(f32[128,256]{1,0:T(8,128)}, bf16[3])"), bytes_of("pred[]")
    (131078, 1)
    """
    total = 0
    for name, bits, dimensions in _ARRAY.findall(shape):
        count = math.prod(int(n) for n in dimensions.split(",") if n)
        total += -(-count * (8 if name == "pred" else int(bits)) // 8)
    return total
