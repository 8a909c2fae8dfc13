"""The folder of a run: what was run, where, and with what; nothing in it is hidden in a binary."""

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jdl.core.errors import error
from jdl.core.version import __version__
from jdl.run.storage.files import (
    explain_write_errors,
    flatten_config,
    read_json,
    to_json,
    write_bytes,
    write_json,
)

log = logging.getLogger("jdl")


def next_run_dir(root: Path, name: str) -> Path:
    """Make the folder `<root>/<name>/<n>` with the next free number; two processes never share one.

    Gaps are not filled, so that a higher number is always a later run.
    """
    parent = Path(root) / name
    with explain_write_errors(parent):
        while True:
            parent.mkdir(parents=True, exist_ok=True)
            # Another process may take the number, or leave without a run and remove the parent.
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                used = [int(entry.name) for entry in parent.iterdir() if entry.name.isdecimal()]
                folder = parent / str(max(used, default=0) + 1)
                folder.mkdir()
                return folder


class RunDir:
    """Names and contents of a run's files.

    `config.json`, `experiment.py` (the source, one file), `environment.json`,
    `metrics.jsonl`, `time.json`, `events/`, `profile/`, `checkpoints/`, `figures/` and
    `report.html`.
    """

    def __init__(self, path: str | Path, config: Any = None, experiment: Path | None = None):
        """`config` and the file `experiment` are written by `begin`, together with its settings."""
        self.path = Path(path)
        self._config, self._experiment = config, experiment
        self.config_file = self.path / "config.json"
        self.experiment_file = self.path / "experiment.py"
        self.environment_file = self.path / "environment.json"
        self.metrics = self.path / "metrics.jsonl"
        self.times = self.path / "time.json"
        self.profile = self.path / "profile"
        self.checkpoints = self.path / "checkpoints"
        self.events = self.path / "events"
        self.figures = self.path / "figures"
        self.report = self.path / "report.html"

    def exists(self) -> bool:
        """Whether the folder holds a run (`config.json` is written last)."""
        return self.config_file.is_file()

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Make the directory, or check that the run in it has the same configuration."""
        config = {**to_json(self._config or {}), **settings}
        if self.exists():
            self.open().check_same_config(config)
        else:
            self.create(config, self._experiment)

    def identity(self) -> dict[str, Any]:
        """What every process of a run has to have the same: settings, source and versions."""
        source = None if self._experiment is None else _source(Path(self._experiment))
        return {
            **to_json(self._config or {}),
            "folder": str(self.path),
            "experiment_sha256": None if source is None else hashlib.sha256(source).hexdigest(),
            "versions": {name: _version(name) for name in _PACKAGES} | {"jdl": __version__},
        }

    def create(
        self,
        config: Any,
        experiment: Path | None = None,
        *,
        command: list[str] | None = None,
    ) -> "RunDir":
        """Make the folder of a new run; one that holds another run already is an `InputError`.

        `config` is a dict or dataclass, `experiment` the file that defines it, `command` the
        arguments of the program (those of this process when left out).
        """
        if self.exists():
            raise error(
                f"run folder {self.path}",
                expected="a new folder",
                got="the folder of an earlier run",
                fix="resume that run, or choose another folder",
            )
        with explain_write_errors(self.path):
            for folder in (self.path, self.checkpoints, self.figures):
                folder.mkdir(parents=True, exist_ok=True)
            digest = None
            if experiment is not None:
                source = _source(Path(experiment))
                digest = hashlib.sha256(source).hexdigest()
                write_bytes(self.experiment_file, source)
            environment = describe_environment(command)
            write_json(self.environment_file, {**environment, "experiment_sha256": digest})
            write_json(self.config_file, to_json(config))
        return self

    def open(self) -> "RunDir":
        """Check that the folder holds a readable run."""
        if not self.exists():
            raise error(
                f"run folder {self.path}",
                expected="the folder of a run, with its config.json",
                got="a folder without one" if self.path.is_dir() else "no such folder",
                fix="give the path that the training command printed, runs/<name>/<n>",
            )
        self.config()
        self.environment()
        return self

    def config(self) -> dict[str, Any]:
        """The configuration of the run."""
        return read_json(self.config_file)

    def environment(self) -> dict[str, Any]:
        """Versions, devices and command of the run's start."""
        return read_json(self.environment_file)

    def check_same_config(self, new: Any) -> None:
        """Refuse to resume with other settings, naming every one that differs with both values.

        Only a larger `epochs` is accepted, and recorded.
        """
        old, new = self.config(), to_json(new)
        before, after = flatten_config(old), flatten_config(new)
        changed = []
        for name in dict.fromkeys([*before, *after]):
            was, wanted = before.get(name, _ABSENT), after.get(name, _ABSENT)
            grown = name.rsplit(".", 1)[-1] == "epochs" and _is_more(was, wanted)
            if _shown(was) != _shown(wanted) and not grown:
                changed.append(f"{name}: {_shown(was)} in the run, {_shown(wanted)} now")
        if changed:
            raise error(
                f"run folder {self.path}",
                expected="the configuration of the run (only larger epochs may change)",
                got="; ".join(changed),
                fix="resume with the run's values, or choose another folder",
            )
        if before != after:
            write_json(self.config_file, new)

    def check_experiment(self) -> Path:
        """The run's `experiment.py`, a program, once its hash is found to be the recorded one."""
        recorded = self.environment().get("experiment_sha256")
        if recorded is None or not self.experiment_file.is_file():
            raise error(
                f"{self.experiment_file}",
                expected="the source of the experiment",
                got="no file, and no recorded hash" if recorded is None else "no such file",
                fix="give your own copy with --experiment FILE.py",
            )
        found = hashlib.sha256(self.experiment_file.read_bytes()).hexdigest()
        if found != recorded:
            raise error(
                f"{self.experiment_file} was changed after the run was made, and is not run",
                expected=f"SHA-256 {recorded[:16]}...",
                got=f"SHA-256 {found[:16]}...",
                fix="restore it, or give a copy that you trust with --experiment FILE.py",
            )
        return self.experiment_file

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; ends with the block or the process, whatever ends it.

        Taken before anything is written. On a system without `fcntl` nothing is locked.
        """
        try:
            import fcntl
        except ImportError:
            log.info("run folders are not locked on this system")
            yield
            return
        with explain_write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.path / ".lock", "a+", encoding="utf-8")  # noqa: SIM115
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as busy:
                file.seek(0)
                raise error(
                    f"run folder {self.path}",
                    expected="a folder that no other process trains in",
                    got=f"one in use by process {file.read().strip() or '(unknown)'}",
                    fix="wait for that run or stop it, or choose another folder",
                ) from busy
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield


def describe_environment(command: list[str] | None = None) -> dict[str, Any]:
    """Versions, devices and command: what one has to know to run this again."""
    import jax

    return {
        "jdl": __version__,
        "command": sys.argv if command is None else command,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
    }


_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_ABSENT = object()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _source(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as bad:
        raise error(
            f"experiment {path}",
            expected="a Python file",
            got=bad.strerror or str(bad),
            fix="give the path of the file that defines the experiment",
        ) from bad


def _is_more(was: Any, wanted: Any) -> bool:
    return all(type(value) in (int, float) for value in (was, wanted)) and wanted > was


def _shown(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value)
