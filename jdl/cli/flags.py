"""Command-line arguments: the fields of an experiment and the options of a run."""

import dataclasses
from typing import Annotated, Any, Literal

from jdl.core.errors import did_you_mean, error


@dataclasses.dataclass(frozen=True)
class RunFlags:
    """Options of the run, in addition to the fields of the experiment."""

    dir: str | None = None
    """Run directory; if it holds a run, that run is resumed. Default: runs/NAME/N."""
    seed: int = 0
    """Seed of the weights, the order of the examples and all other randomness."""
    seeds: int = 1
    """Train with this many seeds and print mean and standard deviation."""
    start: str | None = None
    """Run directory whose weights to start from."""
    fork: str | None = None
    """RUN or RUN@STEP: start a new run from the whole checkpoint, with the changes given here."""
    mesh: str | None = None
    """Devices by axis: data=8, or data=4,model=2; for a sweep also members=8."""
    sharding: str = "replicated"
    """How to place the state on the mesh: data (or replicated), fsdp, tensor, tensor+fsdp, or
    'REGEX=SPEC; ...', where SPEC lists an axis, data+model or None for each dimension: a,None."""
    coordinator: str | None = None
    """For several processes: HOST:PORT of process 0, or auto (SLURM, Cloud TPU)."""
    processes: int | None = None
    """Number of processes; detected with auto."""
    process: int | None = None
    """Index of this process, from 0; detected with auto."""
    join_timeout: float = 300
    """Seconds to wait for a process that starts late, compiles for the first time or saves."""
    heartbeat_timeout: float = 5
    """Seconds that a process may be silent or keep the others waiting."""
    cache: bool = True
    """Cache compiled programs on disk for the next run."""
    dispatch: Literal["auto", "step", "loop"] = "auto"
    """Steps per call of the compiled program: one, many, or chosen automatically."""
    profile: int = 0
    """Record a trace of this many steps, after the first ones, for TensorBoard's profiler."""
    report: bool = True
    """Write figures and report.html."""
    verbose: bool = False
    """Also print memory and dispatch settings."""


def parse(
    config_type: type,
    given: list[str],
    prog: str,
    default: Any = None,
    run_default: RunFlags | None = None,
) -> tuple[Any, RunFlags]:
    """The configuration and the run's options; `--help` and unknown arguments exit.

    `default` and `run_default` replace the defaults of the two types.
    """
    import tyro

    defaults = _required_or_default(config_type, default)
    # The help texts are passed here because tyro would search the source for them, for 20 ms.
    config = Annotated[config_type, tyro.conf.arg(name="", help=config_type.__doc__)]
    run = Annotated[RunFlags, tyro.conf.arg(help=RunFlags.__doc__)]
    fields = [
        ("config", config, defaults),
        ("run", run, dataclasses.field(default=run_default or RunFlags())),
    ]
    arguments = dataclasses.make_dataclass("Arguments", fields)
    parsed: Any = tyro.cli(arguments, prog=prog, args=given, description=config_type.__doc__)
    return parsed.config, parsed.run


def _required_or_default(config_type: type, default: Any) -> Any:
    """The field that holds the configuration; it has no default if one of its own fields has none.

    Then `tyro` asks for the flags that are missing.
    """
    if default is not None:
        return dataclasses.field(default_factory=lambda: default)
    if any(_is_required(field) for field in dataclasses.fields(config_type)):
        return dataclasses.field()
    return dataclasses.field(default_factory=config_type)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.init and field.default is missing and field.default_factory is missing


def positional(given: list[str], usage: str, what: str) -> tuple[str, list[str]]:
    """The required first argument of a command, and the rest."""
    if not given or given[0].startswith("-"):
        raise error(usage, expected=what, got=given[0] if given else "nothing", fix=f"run {usage}")
    return given[0], given[1:]


def parse_simple(given: list[str], known: dict[str, Any]) -> dict[str, Any]:
    """Parse the flags of a command: those in `known` with False are switches, others take a value.

    Raises `InputError` for an unknown flag.
    """
    values, rest = split_flags(given, known)
    if rest:
        flag = rest[0]
        raise error(flag, expected=", ".join(known), got=flag, fix=did_you_mean(flag, known))
    return values


def split_flags(given: list[str], known: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Separate the flags of a command from those of an experiment.

    >>> given = ["--width", "8", "--json", "--memory=16GB"]
    >>> split_flags(given, {"--json": False, "--memory": None})
    ({'--json': True, '--memory': '16GB'}, ['--width', '8'])
    """
    values, rest, left = dict(known), [], list(given)
    while left:
        argument = left.pop(0)
        flag, equals, value = argument.partition("=")
        if flag not in known:
            rest.append(argument)
        elif known[flag] is False:
            values[flag] = True
        elif equals or left:
            values[flag] = value if equals else left.pop(0)
        else:
            raise error(flag, expected="a value", got="nothing", fix=f"pass {flag} VALUE")
    return values, rest


def sweep_fields(given: list[str]) -> tuple[dict[str, str], list[str]]:
    """The values of the `--sweep.NAME` flags by name, and the other arguments."""
    texts, rest, left = {}, [], list(given)
    while left:
        argument = left.pop(0)
        if not argument.startswith("--sweep."):
            rest.append(argument)
            continue
        flag, _, value = argument.partition("=")
        if not value and not left:
            raise error(
                flag, expected="values separated by commas", got="nothing", fix=f"pass {flag} 1,2"
            )
        texts[flag.removeprefix("--sweep.").replace("-", "_")] = value or left.pop(0)
    if not texts and not {"-h", "--help"} & set(rest):
        raise error(
            "jdl sweep",
            expected="a field to sweep",
            got="none",
            fix="pass --sweep.learning-rate 1e-4,1e-3, for example",
        )
    return texts, rest


def with_required_fields(config_type: type, texts: dict[str, str], given: list[str]) -> list[str]:
    """The arguments, with the first value of each swept field that has no default."""
    required = {field.name for field in dataclasses.fields(config_type) if _is_required(field)}
    return [
        *(
            argument
            for name in texts
            if name in required
            for argument in (f"--{name.replace('_', '-')}", texts[name].split(",")[0])
        ),
        *given,
    ]


def flag_of(name: str) -> str:
    """The flag of a field, without its dashes.

    >>> flag_of("inner.learning_rate")
    'inner.learning-rate'
    """
    return name.replace("_", "-")


def without(given: list[str], *names: str) -> list[str]:
    """The words of a command, without some flags and their values.

    >>> without(["--epochs", "3", "--run.dir", "runs/1"], "--run.dir")
    ['--epochs', '3']
    """
    return split_flags(given, dict.fromkeys(names))[1]


def words_of_values(flag: str, text: str) -> list[list[str]]:
    """The words that pass each value of a sweep to the field's own flag.

    >>> words_of_values("--rate", "1,2"), words_of_values("--best", "true,false")
    ([['--rate', '1'], ['--rate', '2']], [['--best'], ['--no-best']])
    """
    switches = {"true": flag, "false": f"--no-{flag.removeprefix('--')}"}
    values = text.split(",")
    if all(value.lower() in switches for value in values):
        return [[switches[value.lower()]] for value in values]
    return [[flag, value] for value in values]


def sweep_values(config: Any, name: str, text: str, given: list[str]) -> list[Any]:
    """The values of a field to sweep, parsed like the field's own flag."""
    fields = {field.name for field in dataclasses.fields(config)}
    flag = f"--sweep.{name.replace('_', '-')}"
    if name not in fields:
        raise error(
            flag, expected="a field of the experiment", got=name, fix=did_you_mean(name, fields)
        )
    values = text.split(",")
    if isinstance(getattr(config, name), bool):
        known = {"true": True, "false": False}
        if not {value.lower() for value in values} <= set(known):
            raise error(flag, expected="true,false", got=text, fix=f"pass {flag} true,false")
        return [known[value.lower()] for value in values]
    own = f"--{name.replace('_', '-')}"
    return [
        getattr(parse(type(config), [*given, own, value], "jdl sweep")[0], name) for value in values
    ]


def default_mesh(run: RunFlags) -> RunFlags:
    """With several processes and no mesh, split the batch over all devices.

    So does one process that resumes a sharded run of several.
    """
    import jax

    if run.mesh is not None or (jax.process_count() == 1 and not _began_on_all_devices(run)):
        return run
    return dataclasses.replace(run, mesh=f"data={jax.device_count()}")


def _began_on_all_devices(run: RunFlags) -> bool:
    """Whether the run to resume is sharded without a mesh, as several processes allow."""
    from jdl.run.storage.run_dir import RunDir

    if run.dir is None or run.sharding == RunFlags.sharding or not RunDir(run.dir).exists():
        return False
    recorded = RunDir(run.dir).config().get("run")
    return isinstance(recorded, dict) and recorded.get("mesh", "") is None


def on_mesh(learner: Any, run: RunFlags) -> Any:
    """Shard the learner as `--run.mesh` and `--run.sharding` specify.

    Raises `InputError` for a sharding without a mesh.
    """
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
            fix="pass --run.mesh data=8 as well",
        )
    return learner


def mesh_axes(text: str) -> dict[str, int]:
    """Parse the sizes of a mesh by axis; raises `InputError` for another format.

    >>> mesh_axes("data=4,model=2")
    {'data': 4, 'model': 2}
    """
    axes = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if not name.isidentifier() or not size.isdecimal():
            raise error(
                "--run.mesh", expected="name=size,...", got=text, fix="pass --run.mesh data=8"
            )
        if name in axes:
            raise error(
                "--run.mesh", expected="each axis once", got=text, fix=f"pass {name}= only once"
            )
        axes[name] = int(size)
    return axes
