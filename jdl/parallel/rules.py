"""Rules that place the leaves of a state on a mesh: `rule(path, shape, mesh) -> PartitionSpec`.

A rule sees every leaf of the `TrainState`, the optimizer's moments included, so moments and
averages land where their parameters do.
"""

import difflib
import re
from collections.abc import Callable, Collection, Sequence
from math import prod
from typing import Any, NamedTuple

from jax.sharding import Mesh, PartitionSpec

from jdl.core.errors import did_you_mean, error
from jdl.parallel.mesh import batch_axis

Rule = Callable[[str, tuple[int, ...], Mesh], PartitionSpec]

# Where Megatron-LM splits a transformer, by the names of jdl.models.layers.attention: the
# dimension, counted from the end, so that members of an ensemble may stand before it.
_BLOCK = r"(block_\d+|blocks)/"
COLUMNS = rf"{_BLOCK}(attention/qkv|dense_1)/(kernel|bias)$"
ROWS = rf"{_BLOCK}(attention/output|dense_2)/kernel$"
TABLES = r"/(tokens|embed)/embedding$"


class PathRule(NamedTuple):
    """A rule that looks for certain leaves, and can say that it found none of them."""

    place: Rule
    check: Callable[[Collection[str]], None]

    def __call__(self, path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        """Where one leaf goes."""
        return self.place(path, shape, mesh)


def replicated() -> Rule:
    """Every device holds everything: plain data parallelism."""
    return lambda path, shape, mesh: PartitionSpec()


def fsdp(axis: str = "data", smallest: int = 2**10, after: Rule | None = None) -> Rule:
    """Split the largest dimension that the axis divides (Rajbhandari et al. 2020, "ZeRO").

    Leaves with fewer than `smallest` numbers stay whole: moving them costs more than they weigh.
    With another rule as `after`, that one comes first, and a dimension it left whole is split.

    >>> from jdl.parallel.mesh import mesh
    >>> import jax
    >>> tuple(fsdp()("params/dense/kernel", (30, 8000), mesh(data=len(jax.devices()))))
    (None, 'data')
    """

    def place(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        size = _size(f"fsdp({axis!r})", axis, mesh)
        first = PartitionSpec() if after is None else after(path, shape, mesh)
        taken = [*first, *(None,) * (len(shape) - len(first))]
        free = [d for d, n in enumerate(shape) if taken[d] is None and n % size == 0]
        if not free or prod(shape) < smallest or axis in axes_of(first):
            return first
        taken[max(free, key=lambda d: shape[d])] = axis
        return _spec(taken)

    return _searching(place, after)


def tensor(axis: str = "model", otherwise: Rule | None = None) -> Rule:
    """Split the transformer's layers as Megatron-LM does (Shoeybi et al. 2019).

    By columns query, key, value and the first dense layer of each block, with their biases; by
    rows the two layers that write to the residual sum, so that a block needs two sums over
    `axis` forward and two backward. Embedding tables are split by their vocabulary or, where the
    axis does not divide it, by their width. `otherwise` (replicated) places the other leaves.
    A model with none of these leaves is an `InputError`, and so is an axis that splits the batch.

    >>> from jdl.parallel.mesh import mesh
    >>> import jax
    >>> two = mesh(data=1, model=len(jax.devices()))
    >>> tuple(tensor()("params/stack/block_1/attention/output/kernel", (64, 64), two))
    ('model', None)
    """
    rest = otherwise or replicated()

    def place(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        size = _size(f"tensor({axis!r})", axis, mesh)
        if axis == batch_axis(mesh):
            raise error(
                f"tensor({axis!r})",
                expected="an axis beside the one that splits the batch",
                got=f"the mesh {dict(mesh.shape)}, whose axis {axis!r} does that",
                fix=f"make a mesh with both: data=1,{axis}={size}",
            )
        if re.search(COLUMNS, path):
            from_end = 1
        elif re.search(ROWS, path):
            from_end = 2
        elif re.search(TABLES, path):
            from_end = 2 if len(shape) > 1 and shape[-2] % size == 0 else 1
        else:
            return rest(path, shape, mesh)
        # An average counts its steps for each leaf: a scalar of the same name.
        if len(shape) < from_end:
            return PartitionSpec()
        places: list[Any] = [None] * len(shape)
        places[-from_end] = axis
        return PartitionSpec(*places)

    def check(paths: Collection[str]) -> None:
        wanted = (COLUMNS, ROWS, TABLES)
        if not any(re.search(pattern, path) for pattern in wanted for path in paths):
            raise error(
                f"tensor({axis!r})",
                expected="the layers of a transformer from jdl.models: attention/qkv, "
                "attention/output, dense_1 and dense_2 of block_N, tokens or embed",
                got=f"parameters such as {_some(paths)}",
                fix="use fsdp, or name the leaves to split: a list of REGEX=SPEC",
            )

    return _searching(place, otherwise, check)


def regex(rules: Sequence[tuple[str, PartitionSpec]], otherwise: Rule | None = None) -> Rule:
    """The spec of the first pattern found in a leaf's path; `otherwise` (replicated) for the rest.

    Paths are such as `params/stack/norm/scale` and `opt_state/0/mu/stack/norm/scale`: a pattern
    without `params/` places moments and averages with their parameters. A pattern that is found
    in no path of a state is an `InputError`.

    >>> rule = regex([("attention/.*/kernel", PartitionSpec(None, "model"))])
    >>> tuple(rule("params/attention/query/kernel", (8, 8), None))
    (None, 'model')
    """
    rest = otherwise or replicated()
    for pattern, _ in rules:
        try:
            re.compile(pattern)
        except re.error as bad:
            raise error(
                f"pattern {pattern!r}",
                expected="a regular expression",
                got=str(bad),
                fix="mend it; special characters are meant as such after a backslash",
            ) from None

    def place(path: str, shape: tuple[int, ...], mesh: Any) -> PartitionSpec:
        for pattern, spec in rules:
            if re.search(pattern, path):
                return spec
        return rest(path, shape, mesh)

    def check(paths: Collection[str]) -> None:
        for pattern, _ in rules:
            if not any(re.search(pattern, path) for path in paths):
                raise error(
                    f"pattern {pattern!r}",
                    expected="to be found in the path of a leaf",
                    got="none that has it",
                    fix=f"write it for paths such as {_some(paths, pattern)}",
                )

    return _searching(place, otherwise, check)


def parse(text: str) -> Rule:
    """A rule from words: `data`, `fsdp`, `tensor`, `tensor+fsdp`, or `REGEX=SPEC;...`.

    In a list, entries are separated by `;`, and what stands after the last `=` of one is its spec:
    for each dimension an axis, several as `data+model`, or `None`, with commas between. A word
    at the end places the leaves in which no pattern is found. `replicated` is another word for
    `data`.

    >>> rule = parse("tokens/embedding=model; dense/kernel=None,data+model; data")
    >>> tuple(rule("params/dense/kernel", (8, 8), None))
    (None, ('data', 'model'))
    """
    *entries, last = [entry.strip() for entry in text.split(";")]
    known = {
        "data": replicated,
        "replicated": replicated,
        "fsdp": fsdp,
        "tensor": tensor,
        "tensor+fsdp": lambda: fsdp(after=tensor()),
    }
    if not entries and "=" not in last and last not in known:
        raise error(
            "--run.sharding",
            expected=f"{', '.join(known)} or REGEX=SPEC;...",
            got=repr(text),
            fix=did_you_mean(last, known),
        )
    if last not in known:
        return regex([_entry(entry, text) for entry in [*entries, last]])
    otherwise = known[last]()
    return regex([_entry(e, text) for e in entries], otherwise) if entries else otherwise


def axes_of(spec: PartitionSpec) -> list[str]:
    """The mesh axes that a spec uses.

    >>> axes_of(PartitionSpec(None, ("data", "model")))
    ['data', 'model']
    """
    return [a for names in spec for a in ((names,) if isinstance(names, str) else names or ())]


def _entry(text: str, whole: str) -> tuple[str, PartitionSpec]:
    """One `REGEX=SPEC`."""
    pattern, _, dimensions = text.rpartition("=")
    axes = [[axis.strip() for axis in word.split("+")] for word in dimensions.split(",")]
    if not pattern or not all(axis.isidentifier() for names in axes for axis in names):
        raise error(
            f"--run.sharding {whole!r}",
            expected="entries REGEX=SPEC with ; between, such as 'kernel$=None,model; fsdp'",
            got=repr(text),
            fix="write for each dimension an axis, data+model, or None, with commas between",
        )
    return pattern.strip(), _spec(
        [
            None if names == ["None"] else names[0] if len(names) == 1 else (*names,)
            for names in axes
        ]
    )


def _spec(places: list[Any]) -> PartitionSpec:
    """A spec without what says nothing at its end."""
    while places and places[-1] is None:
        places = places[:-1]
    return PartitionSpec(*places)


def _size(what: str, axis: str, mesh: Mesh) -> int:
    if axis not in mesh.shape:
        raise error(
            what,
            expected=f"an axis of the mesh {dict(mesh.shape)}",
            got=repr(axis),
            fix=f"{did_you_mean(axis, mesh.axis_names)}, or make one: data=4,model=2",
        )
    return mesh.shape[axis]


def _searching(
    place: Rule, inner: Rule | None, own: Callable[[Collection[str]], None] | None = None
) -> PathRule:
    """A rule that checks what it and the rule inside it look for."""

    def check(paths: Collection[str]) -> None:
        if own is not None:
            own(paths)
        if isinstance(inner, PathRule):
            inner.check(paths)

    return PathRule(place, check)


def _some(paths: Collection[str], like: str = "") -> str:
    """A few parameters' paths, those first that look `like` a pattern."""
    params = [path for path in paths if path.startswith("params/")] or list(paths)
    close = difflib.get_close_matches(like, params, n=3, cutoff=0.3) if like else []
    return ", ".join((close or params)[:3])
