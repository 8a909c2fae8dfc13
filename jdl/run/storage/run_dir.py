"""The run directory: configuration, source, environment and results of a run, in plain files."""

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
    """Make the directory `<root>/<name>/<n>`, where n is one more than the highest number there.

    Two processes never get the same one.
    """
    parent = Path(root) / name
    with explain_write_errors(parent):
        while True:
            parent.mkdir(parents=True, exist_ok=True)
            # Another process may take the number, or end without a run and remove the parent.
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                used = [int(entry.name) for entry in parent.iterdir() if entry.name.isdecimal()]
                folder = parent / str(max(used, default=0) + 1)
                folder.mkdir()
                return folder


class RunDir:
    """The paths of a run's files, and its configuration.

    `config.json`, `experiment.py` (the source, one file), `environment.json`,
    `metrics.jsonl`, `time.json`, `events/`, `profile/`, `checkpoints/`, `figures/` and
    `report.html`.
    """

    def __init__(self, path: str | Path, config: Any = None, experiment: Path | None = None):
        """`begin` writes `config` and a copy of the file `experiment`."""
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
        """Whether the directory holds a run (`config.json` is written last)."""
        return self.config_file.is_file()

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Create the run, or check that the run in the directory has the same configuration."""
        config = {**to_json(self._config or {}), **settings}
        if self.exists():
            self.open().check_same_config(config)
        else:
            self.create(config, self._experiment)

    def identity(self) -> dict[str, Any]:
        """What must be the same in every process: configuration, source and versions."""
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
        """Create the directory of a new run.

        `config` is a dict or dataclass, `experiment` the file that defines it, `command` the
        arguments of the program (None: those of this process). Raises `InputError` if the directory
        holds a run already.
        """
        if self.exists():
            raise error(
                f"run directory {self.path}",
                expected="a new directory",
                got="the directory of an earlier run",
                fix="resume that run, or choose another directory",
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
        """Check that the directory holds a readable run."""
        if not self.exists():
            raise error(
                f"run directory {self.path}",
                expected="a directory with the config.json of a run",
                got="a directory without one" if self.path.is_dir() else "no such directory",
                fix="pass the path that jdl train printed: runs/<name>/<n>",
            )
        self.config()
        self.environment()
        return self

    def config(self) -> dict[str, Any]:
        """The configuration of the run."""
        return read_json(self.config_file)

    def environment(self) -> dict[str, Any]:
        """Versions, devices and command at the start of the run."""
        return read_json(self.environment_file)

    def check_same_config(self, new: Any) -> None:
        """Raise `InputError` if a setting differs from the run's, with both values of each.

        A larger `epochs` is accepted and recorded.
        """
        old, new = self.config(), to_json(new)
        before, after = flatten_config(old), flatten_config(new)
        changed = []
        for name in dict.fromkeys([*before, *after]):
            was, now = before.get(name, _ABSENT), after.get(name, _ABSENT)
            is_extended = name.rsplit(".", 1)[-1] == "epochs" and _is_more(was, now)
            if _as_text(was) != _as_text(now) and not is_extended:
                changed.append(f"{name}: {_as_text(was)} in the run, {_as_text(now)} now")
        if changed:
            raise error(
                f"run directory {self.path}",
                expected="the configuration of the run that it holds (only epochs may grow)",
                got="; ".join(changed),
                fix="resume with the run's values, or choose another directory for a new run",
            )
        if before != after:
            write_json(self.config_file, new)

    def check_experiment(self) -> Path:
        """The path of the run's `experiment.py`, after its hash matched the recorded one."""
        recorded = self.environment().get("experiment_sha256")
        if recorded is None or not self.experiment_file.is_file():
            raise error(
                f"{self.experiment_file}",
                expected="the source of the experiment",
                got="no file and no recorded hash" if recorded is None else "no such file",
                fix="pass your own copy: --experiment FILE.py, or jdl.load(run, experiment=...)",
            )
        digest = hashlib.sha256(self.experiment_file.read_bytes()).hexdigest()
        if digest != recorded:
            raise error(
                f"{self.experiment_file} was changed after the run started; it is not executed",
                expected=f"SHA-256 {recorded[:16]}...",
                got=f"SHA-256 {digest[:16]}...",
                fix="restore the file, or pass a copy that you trust: --experiment FILE.py, or "
                "jdl.load(run, experiment=...)",
            )
        return self.experiment_file

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the directory for this process, until the block or the process ends.

        Raises `InputError` if another process holds it. Does nothing on a system without `fcntl`.
        """
        try:
            import fcntl
        except ImportError:
            log.info("run directories are not locked on this system")
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
                    f"run directory {self.path}",
                    expected="a directory that no other process uses",
                    got=f"one in use by process {file.read().strip() or '(unknown)'}",
                    fix="wait for that run or stop it, or choose another directory",
                ) from busy
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield


def describe_environment(command: list[str] | None = None) -> dict[str, Any]:
    """Versions, devices and command, to reproduce the run."""
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
            expected="a readable Python file",
            got=bad.strerror or str(bad),
            fix="pass the path of the file that defines the experiment",
        ) from bad


def _is_more(was: Any, now: Any) -> bool:
    return all(type(value) in (int, float) for value in (was, now)) and now > was


def _as_text(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value)
