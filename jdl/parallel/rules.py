"""Sharding rules: functions `rule(path, shape, mesh) -> PartitionSpec` for the leaves of a state.

A rule is called for every leaf of the `TrainState`, including the optimizer's moments, so that
moments and averages are sharded like their parameters.
"""

import difflib
import re
from collections.abc import Callable, Collection, Sequence
from math import prod
from typing import Any, NamedTuple

from jax.sharding import Mesh, PartitionSpec

from jdl.core.errors import did_you_mean, error
from jdl.core.nouns import describe
from jdl.parallel.mesh import batch_axis

Rule = Callable[[str, tuple[int, ...], Mesh], PartitionSpec]
"""`rule(path, shape, mesh) -> PartitionSpec`."""

# The leaves that Megatron-LM splits, by the names of jdl.models.layers.attention. `tensor` counts
# the dimension to split from the end, since an ensemble adds a leading one.
_BLOCK = r"(block_\d+|blocks)/"
COLUMNS = rf"{_BLOCK}(attention/qkv|dense_1)/(kernel|bias)$"
ROWS = rf"{_BLOCK}(attention/output|dense_2)/kernel$"
TABLES = r"/(tokens|embed)/embedding$"


class PathRule(NamedTuple):
    """A rule for certain paths, with a check that a state has such paths.

    `place` is the rule. `check(paths)` gets the paths of all leaves and raises `InputError` if the
    rule matches none of them; `shard` calls it.

    >>> rule = regex([("kernel$", PartitionSpec("model"))])
    >>> rule.check(["params/dense/kernel"])
    >>> tuple(rule("params/dense/kernel", (8, 8), None))
    ('model',)
    """

    place: Rule
    check: Callable[[Collection[str]], None]

    def __call__(self, path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        """The spec of one leaf."""
        return self.place(path, shape, mesh)


def replicated() -> Rule:
    """Replicate the state on every device: plain data parallelism.

    >>> tuple(replicated()("params/dense/kernel", (30, 8000), None))
    ()
    """
    return lambda path, shape, mesh: PartitionSpec()


def fsdp(axis: str = "data", smallest: int = 2**10, after: Rule | None = None) -> Rule:
    """Split the largest dimension of each leaf that the axis divides.

    This is fully sharded data parallelism, stage 3 of ZeRO (Rajbhandari et al. 2020). Leaves with
    fewer than `smallest` elements are replicated, because gathering them takes long compared with
    the memory it saves. With `after`, that rule is applied first, and `fsdp` splits one of the
    dimensions that it leaves whole.

    The rule raises `InputError` if the mesh has no such axis.

    >>> from jdl.parallel.mesh import mesh
    >>> import jax
    >>> tuple(fsdp()("params/dense/kernel", (30, 8000), mesh(data=len(jax.devices()))))
    (None, 'data')
    """

    def place(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        size = _size(f"fsdp({axis!r})", axis, mesh)
        first = PartitionSpec() if after is None else after(path, shape, mesh)
        axes = [*first, *(None,) * (len(shape) - len(first))]
        free = [d for d, n in enumerate(shape) if axes[d] is None and n % size == 0]
        if not free or prod(shape) < smallest or axis in axes_of(first):
            return first
        axes[max(free, key=lambda d: shape[d])] = axis
        return _spec(axes)

    return _path_rule(place, after)


def tensor(axis: str = "model", otherwise: Rule | None = None) -> Rule:
    """Tensor parallelism: split the layers of a transformer as Megatron-LM does.

    In each block the layers of query, key and value and the first dense layer are split by columns,
    with their biases. The two layers that write to the residual stream are split by rows. So a
    block needs two sums over `axis` forward and two backward (Shoeybi et al. 2019). Embedding
    tables are split by vocabulary or, if the axis does not divide it, by width. `otherwise`,
    `replicated()` by default, is the rule for all other leaves.

    The rule raises `InputError` if the mesh has no such axis or the axis splits the batch; `shard`
    also raises it for a model without these layers.

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
                expected="a mesh axis other than the batch axis",
                got=f"the mesh {dict(mesh.shape)}, whose batch axis is {axis!r}",
                fix=f"make a mesh with both axes: data=1,{axis}={size}",
            )
        if re.search(COLUMNS, path):
            from_end = 1
        elif re.search(ROWS, path):
            from_end = 2
        elif re.search(TABLES, path):
            from_end = 2 if len(shape) > 1 and shape[-2] % size == 0 else 1
        else:
            return rest(path, shape, mesh)
        # `ema` has a scalar count for each leaf, with the same path.
        if len(shape) < from_end:
            return PartitionSpec()
        axes: list[Any] = [None] * len(shape)
        axes[-from_end] = axis
        return PartitionSpec(*axes)

    def check(paths: Collection[str]) -> None:
        patterns = (COLUMNS, ROWS, TABLES)
        if not any(re.search(pattern, path) for pattern in patterns for path in paths):
            raise error(
                f"tensor({axis!r})",
                expected="the layers of a transformer from jdl.models: attention/qkv, "
                "attention/output, dense_1 and dense_2 of block_N, tokens or embed",
                got=f"parameters such as {_examples_of(paths)}",
                fix="use fsdp, or name the leaves to split: a list of REGEX=SPEC",
            )

    return _path_rule(place, otherwise, check)


def regex(rules: Sequence[tuple[str, PartitionSpec]], otherwise: Rule | None = None) -> Rule:
    """Choose specs by regular expressions: the first pattern found in a leaf's path decides.

    `rules` is a list of `(pattern, spec)`; patterns are searched with `re.search`. `otherwise`,
    `replicated()` by default, is the rule for paths without a match. Paths look like
    `params/stack/norm/scale` and `opt_state/0/mu/stack/norm/scale`, so a pattern without `params/`
    also matches moments and averages.

    Raises `InputError` for an invalid pattern; `shard` also raises it for a pattern that matches no
    leaf.

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
                got=f"an invalid one: {bad}",
                fix="correct it; put a backslash before a special character to match it literally",
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
                    expected="a pattern that matches the path of a leaf",
                    got="no match",
                    fix=f"change it to match paths such as {_examples_of(paths, pattern)}",
                )

    return _path_rule(place, otherwise, check)


def parse(text: str) -> Rule:
    """Parse the value of `--run.sharding`: `data`, `fsdp`, `tensor`, `tensor+fsdp` or a list.

    A list is `REGEX=SPEC; REGEX=SPEC; ...`, as in `regex`. The spec follows the last `=` and has
    one item for each dimension, separated by commas: an axis, several axes as `data+model`, or
    `None`. A name such as `fsdp` at the end is the rule for leaves without a match. `replicated`
    is the same as `data`.

    Raises `InputError` for an unknown name, an invalid pattern or an invalid spec.

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


def check_rule(rule: Any, where: str) -> None:
    """Raise `InputError` for the name of a rule, and for a function that makes one.

    >>> check_rule(fsdp, "shard: rule")
    Traceback (most recent call last):
    jdl.core.errors.InputError: shard: rule
      expected: a function (path, shape, mesh) -> PartitionSpec
      got:      the function fsdp
      fix:      call it: jdl.rules.fsdp()
    """
    makers = (replicated, fsdp, tensor, regex, parse)
    if callable(rule) and not any(rule is maker for maker in makers):
        return
    fix = "pass a rule, such as jdl.rules.fsdp()"
    if isinstance(rule, str):
        fix = f"pass jdl.rules.parse({rule!r})"
    elif callable(rule):
        fix = f"call it: jdl.rules.{rule.__name__}()"
    raise error(
        where,
        expected="a function (path, shape, mesh) -> PartitionSpec",
        got=describe(rule),
        fix=fix,
    )


def axes_of(spec: PartitionSpec) -> list[str]:
    """List the mesh axes in a spec.

    >>> axes_of(PartitionSpec(None, ("data", "model")))
    ['data', 'model']
    """
    return [a for names in spec for a in ((names,) if isinstance(names, str) else names or ())]


def _entry(text: str, whole: str) -> tuple[str, PartitionSpec]:
    """One `REGEX=SPEC`."""
    pattern, _, dimensions = text.rpartition("=")
    axes = [[axis.strip() for axis in item.split("+")] for item in dimensions.split(",")]
    if not pattern or not all(axis.isidentifier() for names in axes for axis in names):
        raise error(
            f"--run.sharding {whole!r}",
            expected="REGEX=SPEC entries separated by ;, such as 'kernel$=None,model; fsdp'",
            got=repr(text),
            fix="write one item for each dimension, separated by commas: an axis, several axes "
            "as data+model, or None",
        )
    return pattern.strip(), _spec(
        [
            None if names == ["None"] else names[0] if len(names) == 1 else (*names,)
            for names in axes
        ]
    )


def _spec(axes: list[Any]) -> PartitionSpec:
    """A spec without trailing None."""
    while axes and axes[-1] is None:
        axes = axes[:-1]
    return PartitionSpec(*axes)


def _size(what: str, axis: str, mesh: Mesh) -> int:
    if axis not in mesh.shape:
        raise error(
            what,
            expected=f"an axis of the mesh {dict(mesh.shape)}",
            got=repr(axis),
            fix=f"{did_you_mean(axis, mesh.axis_names)}, or add the axis to the mesh: {axis}=2",
        )
    return mesh.shape[axis]


def _path_rule(
    place: Rule, inner: Rule | None, own: Callable[[Collection[str]], None] | None = None
) -> PathRule:
    """A `PathRule` whose check is `own` and that of the rule inside it."""

    def check(paths: Collection[str]) -> None:
        if own is not None:
            own(paths)
        if isinstance(inner, PathRule):
            inner.check(paths)

    return PathRule(place, check)


def _examples_of(paths: Collection[str], like: str = "") -> str:
    """Up to three paths of parameters, the most similar to `like`."""
    params = [path for path in paths if path.startswith("params/")] or list(paths)
    close = difflib.get_close_matches(like, params, n=3, cutoff=0.3) if like else []
    return ", ".join((close or params)[:3])
