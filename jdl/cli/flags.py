"""The words of a command line: the fields of an experiment and the options of a run."""

import dataclasses
from typing import Annotated, Any, Literal

from jdl.core.errors import did_you_mean, error


@dataclasses.dataclass(frozen=True)
class RunFlags:
    """Options of a run, beside the fields of its experiment."""

    dir: str | None = None
    """Directory of the run; an existing run is resumed there. Default: runs/NAME/N."""
    seed: int = 0
    """Seed of the weights, the order and every mask."""
    seeds: int = 1
    """Repeat with this many seeds and print mean and standard deviation."""
    start: str | None = None
    """A run whose weights to begin from."""
    mesh: str | None = None
    """Devices by axis: data=8, or data=4,model=2; of a sweep also members=8."""
    sharding: str = "replicated"
    """How the state lies on the mesh: data (or replicated), fsdp, tensor, tensor+fsdp, or a list
    'REGEX=SPEC; ...', where a spec is an axis, data+model or None for each dimension: a,None."""
    coordinator: str | None = None
    """Several processes: HOST:PORT of process 0, or auto (SLURM, Cloud TPU)."""
    processes: int | None = None
    """How many processes there are; auto finds it out."""
    process: int | None = None
    """Which of them this one is, from 0; auto finds it out."""
    join_timeout: float = 300
    """How long processes wait for one that is late or does something for the first time."""
    heartbeat_timeout: float = 5
    """How long one process may be silent or keep the others waiting."""
    cache: bool = True
    """Keep compiled programs on disk for the next run."""
    dispatch: Literal["auto", "step", "loop"] = "auto"
    """One step or many for each call of the compiled program; "auto" chooses one."""
    profile: int = 0
    """Leave a trace of so many steps, after the first ones, for TensorBoard's profiler."""
    report: bool = True
    """Write figures and report.html."""
    verbose: bool = False
    """Print how the run is carried out too: memory and dispatch."""


def parse(config_type: type, given: list[str], prog: str) -> tuple[Any, RunFlags]:
    """The configuration and the options of a run; `--help` and wrong words end the program."""
    import tyro

    # Help is given with the two fields, else tyro looks for it in the source: 20 ms each time.
    config = Annotated[config_type, tyro.conf.arg(name="", help=config_type.__doc__)]
    run = Annotated[RunFlags, tyro.conf.arg(help=RunFlags.__doc__)]
    fields = [
        ("config", config, dataclasses.field(default_factory=config_type)),
        ("run", run, dataclasses.field(default=RunFlags())),
    ]
    arguments = dataclasses.make_dataclass("Arguments", fields)
    parsed: Any = tyro.cli(arguments, prog=prog, args=given, description=config_type.__doc__)
    return parsed.config, parsed.run


def positional(given: list[str], usage: str, what: str) -> tuple[str, list[str]]:
    """The word that a command cannot do without, and the rest."""
    if not given or given[0].startswith("-"):
        raise error(usage, expected=what, got=given[0] if given else "nothing", fix=f"say {usage}")
    return given[0], given[1:]


def parse_simple(given: list[str], known: dict[str, Any]) -> dict[str, Any]:
    """The few flags of the small commands; `False` marks a switch, `None` one with a value."""
    values, rest = split_flags(given, known)
    if rest:
        flag = rest[0]
        raise error(flag, expected=", ".join(known), got=flag, fix=did_you_mean(flag, known))
    return values


def split_flags(given: list[str], known: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The flags of a command that stand among those of an experiment, and the rest.

    >>> given = ["--width", "8", "--json", "--memory=16GB"]
    >>> split_flags(given, {"--json": False, "--memory": None})
    ({'--json': True, '--memory': '16GB'}, ['--width', '8'])
    """
    values, rest, left = dict(known), [], list(given)
    while left:
        word = left.pop(0)
        flag, equals, value = word.partition("=")
        if flag not in known:
            rest.append(word)
        elif known[flag] is False:
            values[flag] = True
        elif equals or left:
            values[flag] = value if equals else left.pop(0)
        else:
            raise error(flag, expected="a value", got="nothing", fix=f"say {flag} VALUE")
    return values, rest


def sweep_fields(given: list[str]) -> tuple[dict[str, str], list[str]]:
    """What stands behind `--sweep.NAME`, by name, and the rest."""
    texts, rest, left = {}, [], list(given)
    while left:
        word = left.pop(0)
        if not word.startswith("--sweep."):
            rest.append(word)
            continue
        flag, _, value = word.partition("=")
        if not value and not left:
            raise error(
                flag, expected="values with commas between", got="nothing", fix=f"{flag} 1,2"
            )
        texts[flag.removeprefix("--sweep.").replace("-", "_")] = value or left.pop(0)
    if not texts and not {"-h", "--help"} & set(rest):
        raise error(
            "jdl sweep",
            expected="a field to sweep",
            got="none",
            fix="say --sweep.learning-rate 1e-4,1e-3",
        )
    return texts, rest


def sweep_values(config: Any, name: str, text: str, given: list[str]) -> list[Any]:
    """The values of a swept field, read as its own flag would be."""
    fields = {field.name for field in dataclasses.fields(config)}
    flag = f"--sweep.{name.replace('_', '-')}"
    if name not in fields:
        raise error(
            flag, expected="a field of the experiment", got=name, fix=did_you_mean(name, fields)
        )
    words = text.split(",")
    if isinstance(getattr(config, name), bool):
        known = {"true": True, "false": False}
        if not {word.lower() for word in words} <= set(known):
            raise error(flag, expected="true,false", got=text, fix="write it like that")
        return [known[word.lower()] for word in words]
    own = f"--{name.replace('_', '-')}"
    return [
        getattr(parse(type(config), [*given, own, word], "jdl sweep")[0], name) for word in words
    ]


def default_mesh(run: RunFlags) -> RunFlags:
    """With several processes and no mesh: the batch is split over all devices."""
    import jax

    if run.mesh is not None or jax.process_count() == 1:
        return run
    return dataclasses.replace(run, mesh=f"data={jax.device_count()}")


def on_mesh(learner: Any, run: RunFlags) -> Any:
    """The learner on the mesh that `--run.mesh` and `--run.sharding` ask for."""
    from jdl.parallel import rules
    from jdl.parallel.mesh import mesh
    from jdl.parallel.shard import shard
    from jdl.parallel.shard_members import shard_members

    rule = rules.parse(run.sharding)
    if run.mesh is not None:
        axes = mesh_axes(run.mesh)
        if "members" in axes:
            return shard_members(learner, mesh(**axes))
        return shard(learner, mesh(**axes), rule)
    if run.sharding != RunFlags.sharding:
        raise error(
            f"--run.sharding {run.sharding}",
            expected="a mesh to place the state on",
            got="no --run.mesh",
            fix="say --run.mesh data=8 too",
        )
    return learner


def mesh_axes(text: str) -> dict[str, int]:
    """Sizes by axis, from `data=4,model=2`.

    >>> mesh_axes("data=4,model=2")
    {'data': 4, 'model': 2}
    """
    axes = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if not name.isidentifier() or not size.isdecimal():
            raise error("--run.mesh", expected="name=size,...", got=text, fix="say data=8")
        if name in axes:
            raise error("--run.mesh", expected="each axis once", got=text, fix=f"say {name}= once")
        axes[name] = int(size)
    return axes
