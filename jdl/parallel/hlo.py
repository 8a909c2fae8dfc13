"""The communication of a compiled program, read from its text."""

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
_TURNS = re.compile(r'"?known_trip_count"?:\{"?n"?:"?(\d+)')


class Collective(NamedTuple):
    """One kind of communication in one step of one device."""

    kind: str
    count: int
    bytes: int
    """Of each the whole array: what is gathered, summed, or scattered, on one device."""
    loops: int = 0
    """Those of them that stand in loops of unknown length, and were counted once."""


@dataclass
class _Computation:
    name: str
    sizes: dict[str, int] = field(default_factory=dict)
    found: list[tuple[str, int, str]] = field(default_factory=list)
    """Kind, bytes, and an identity that pieces of the same collective share."""
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Names of the computations it runs, and how often: a number, or the name of a condition."""
    constants: dict[str, str] = field(default_factory=dict)
    bound: float = math.nan
    """Where it is the condition of a loop that counts from zero: up to what."""


def collectives(text: str) -> tuple[Collective, ...]:
    """The collectives of a compiled program, `jax.jit(f).lower(...).compile().as_text()`.

    What stands in a loop counts as often as the loop turns: by the compiler's word, or because it
    counts from zero to a number, as scans do. What is started in one place and awaited in another
    counts once.
    """
    computations, entry = _read(text)
    seen: dict[tuple[str, str], tuple[int, float]] = {}
    for name, times in _reached(computations, entry):
        for kind, size, identity in computations[name].found:
            seen.setdefault((kind, identity), (size, times))
    result = []
    for kind in KINDS:
        rows = [row for (which, _), row in seen.items() if which == kind]
        turns = [1 if math.isnan(times) else int(times) for _, times in rows]
        total = sum(size * n for (size, _), n in zip(rows, turns, strict=True))
        unknown = sum(math.isnan(times) for _, times in rows)
        if rows:
            result.append(Collective(kind, sum(turns), total, unknown))
    return tuple(result)


def _reached(computations: dict[str, _Computation], entry: str) -> Iterator[tuple[str, float]]:
    """Every computation that runs, and how often it does in all."""
    waiting, seen = [(entry, 1.0)], set()
    while waiting:
        name, times = waiting.pop()
        if name in seen or name not in computations:
            continue
        seen.add(name)
        yield name, times
        for called, turns in computations[name].calls:
            known = turns.isdecimal()
            n = float(turns) if known else getattr(computations.get(turns), "bound", math.nan)
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
        turns, condition = _TURNS.search(rest), re.search(r"condition=%?([\w.\-]+)", rest)
        times = turns[1] if turns else condition[1] if condition else ""
    for called in _CALLED.findall(rest):
        into.calls += [(word, times) for word in re.findall(r"[\w.\-]+", called)]
    arguments = rest[operation.end() :].partition(")")[0]
    if kind == "constant":
        into.constants[name] = arguments
    elif kind == "compare" and "direction=LT" in rest:
        last = into.constants.get(re.findall(r"[\w.\-]+", arguments)[-1], "")
        into.bound = float(last) if last.isdecimal() else math.nan
    plain = kind.removesuffix("-start")
    if plain not in KINDS:
        return
    given = sum(into.sizes.get(word, 0) for word in re.findall(r"[\w.\-]+", arguments))
    size = into.sizes[name]
    if kind != plain and rest.startswith("("):
        # What was started holds its operands beside its results; a permutation also has marks.
        size = 0 if plain == "collective-permute" else size - given
    if plain == "all-reduce" and into.name.startswith("all-reduce-scatter"):
        plain = "reduce-scatter"  # as the TPU compiler writes it: a sum of which a part is kept
    into.found.append((plain, max(size, given), _identity(name, rest)))


def _identity(name: str, rest: str) -> str:
    channel = re.search(r"channel_id=(\d+)", rest)
    chain = re.search(r'chain_id="(\d+)"', rest)
    # The TPU compiler lays a gather out over several fusions, each with a copy of it.
    return f"{channel[1]} {chain[1]}" if channel and chain else name


def bytes_of(shape: str) -> int:
    """Bytes of an array, or of all arrays of a tuple, in the words of HLO.

    >>> bytes_of("(f32[128,256]{1,0:T(8,128)}, bf16[3])"), bytes_of("pred[]")
    (131078, 1)
    """
    total = 0
    for name, bits, dimensions in _ARRAY.findall(shape):
        count = math.prod(int(n) for n in dimensions.split(",") if n)
        total += -(-count * (8 if name == "pred" else int(bits)) // 8)
    return total
