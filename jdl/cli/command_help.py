"""The text of `jdl COMMAND --help`; it loads nothing."""

Arguments = dict[str, str]

_EXPERIMENT = {
    "FILE.py": "the file of an experiment, with Config and experiment(config)",
    "--FIELD VALUE": "a field of its Config",
    "--run.OPTION VALUE": "an option of the run, such as --run.dir DIR",
}
_RUN = {
    "RUN": "a run directory, such as runs/digits_cnn/1",
    "--experiment FILE.py": "use this file, not the experiment.py of the run",
}
ARGUMENTS: dict[str, Arguments] = {
    "train": _EXPERIMENT,
    "sweep": {
        **_EXPERIMENT,
        "--sweep.FIELD 1,2,3": "the values of a field; with several fields, every combination",
    },
    "check-sharding": _EXPERIMENT,
    "plan": {
        **_EXPERIMENT,
        "--topology v5e:16x16": "plan for these devices, which need not be present",
        "--slices N": "the number of such slices",
        "--memory 16GB": "the memory of a device, if it is not known",
        "--json": "print the estimate as JSON",
        "--no-suggestions": "try no changes if the step does not fit",
    },
    "evaluate": {**_RUN, "--json": "print the metrics as JSON"},
    "predict": {
        "RUN": _RUN["RUN"],
        "INPUT": "an .npz file (its array x), .npy, .csv or an image, with raw values: they are "
        "scaled like the training data",
        "--out FILE.csv": "write to this file, not to standard output",
        "--experiment FILE.py": _RUN["--experiment FILE.py"],
    },
    "report": _RUN,
    "list": {"DIR": "a directory of runs (default: runs)"},
}
"""The arguments of each command. All but those of an experiment are listed in full."""


def command_help(name: str, summary: str) -> str:
    """The help of a command; `summary` is its line in the table of commands.

    >>> print(command_help("list", "[DIR]: list the runs in a directory"))
    usage: jdl list [DIR]
    <BLANKLINE>
    List the runs in a directory.
    <BLANKLINE>
      DIR   a directory of runs (default: runs)
    """
    arguments, _, purpose = summary.partition(": ")
    own = ARGUMENTS.get(name, {})  # a command of your own may have no texts
    width = max(map(len, own), default=0)
    table = [f"  {argument:<{width}}   {text}" for argument, text in own.items()]
    lines = [
        f"usage: jdl {name} {arguments}",
        "",
        f"{purpose[0].upper()}{purpose[1:]}.",
        "",
        *table,
    ]
    if takes_experiment(name):
        lines += ["", f"`jdl {name} FILE.py --help` lists the fields and options of an experiment."]
    return "\n".join(lines)


def takes_experiment(name: str) -> bool:
    """Whether the command takes the file of an experiment, and with it the experiment's flags."""
    return "FILE.py" in ARGUMENTS.get(name, {})
