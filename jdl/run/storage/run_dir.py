"""The run directory: configuration, source, environment and results of a run, in plain files."""

import contextlib
import difflib
import hashlib
import json
import logging
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jdl.core.errors import InputError, error
from jdl.core.paths import user_path
from jdl.core.version import __version__, package_version
from jdl.run.storage.files import (
    explain_write_errors,
    flatten_config,
    read_json,
    removed,
    to_json,
    write_bytes,
    write_json,
)
from jdl.run.storage.modules import module_digests

log = logging.getLogger("jdl")
SHOWN_DIFF_LINES = 60
"""Lines of the changes of an experiment's source that a message shows."""


def next_run_dir(root: Path, name: str) -> Path:
    """Make the directory `<root>/<name>/<n>`, where n is one more than the highest number there.

    Two processes never get the same one.
    """
    parent = user_path(root) / name
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

    `config.json`, `experiment.py` (the source, one file), `environment.json`, `fingerprint.json`
    (hashes of data and program), `parent.json` (of a fork: the run that it began from),
    `metrics.jsonl`, `time.json`, `events/`, `profile/`, `checkpoints/`, `figures/` and
    `report.html`.
    """

    def __init__(self, path: str | Path, config: Any = None, experiment: Path | None = None):
        """`begin` writes `config` and a copy of the file `experiment`."""
        self.given = user_path(path, "run directory")
        """The path as given, for messages; `path` stays the same if the process changes its own."""
        self.path = self.given.absolute()
        self._config, self._experiment = config, experiment
        self.config_file = self.path / "config.json"
        self.experiment_file = self.path / "experiment.py"
        self.environment_file = self.path / "environment.json"
        self.fingerprint_file = self.path / "fingerprint.json"
        self.parent_file = self.path / "parent.json"
        self.metrics = self.path / "metrics.jsonl"
        self.times = self.path / "time.json"
        self.profile = self.path / "profile"
        self.checkpoints = self.path / "checkpoints"
        self.events = self.path / "events"
        self.figures = self.path / "figures"
        self.report = self.path / "report.html"

    def exists(self) -> bool:
        """Whether the directory holds a run (`config.json` is written last)."""
        return os.path.isfile(self.config_file)  # False, too, for a path that cannot be

    def begin(self, settings: Mapping[str, Any], records: Mapping[str, Any] | None = None) -> None:
        """Create the run, with `records`: the contents of JSON files by their names."""
        self.create(self.full_config(settings), self._experiment, records=records)

    def full_config(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration of the experiment and the settings of `fit`."""
        return {**to_json(self._config or {}), **settings}

    def identity(self) -> dict[str, Any]:
        """What must be the same in every process: configuration, source and versions."""
        source = None if self._experiment is None else _source(Path(self._experiment))
        return {
            **to_json(self._config or {}),
            "folder": str(self.given),
            "experiment_sha256": None if source is None else hashlib.sha256(source).hexdigest(),
            "versions": {name: package_version(name) for name in _PACKAGES} | {"jdl": __version__},
        }

    def create(
        self,
        config: Any,
        experiment: Path | None = None,
        *,
        command: list[str] | None = None,
        records: Mapping[str, Any] | None = None,
    ) -> "RunDir":
        """Create the directory of a new run.

        `config` is a dict or dataclass, `experiment` the file that defines it, `command` the
        arguments of the program (None: those of this process), `records` the contents of further
        JSON files by their names. Raises `InputError` if the directory holds a run already.
        """
        if self.exists():
            raise error(
                f"run directory {self.given}",
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
            modules = {} if experiment is None else module_digests(Path(experiment))
            if modules:
                folder = Path(experiment or "").resolve().parent
                environment["modules"] = {"folder": str(folder), "sha256": modules}
            write_json(self.environment_file, {**environment, "experiment_sha256": digest})
            for name, record in (records or {}).items():
                write_json(self.path / name, record)
            write_json(self.config_file, to_json(config))
        return self

    def open(self) -> "RunDir":
        """Check that the directory holds a readable run."""
        if not self.exists():
            raise error(
                f"run directory {self.given}",
                expected="a directory with the config.json of a run",
                got="a directory without one" if os.path.isdir(self.path) else "no such directory",
                fix="pass the path that jdl train printed: runs/<name>/<n>",
            )
        self.config()
        self.environment()
        return self

    def check_not_removed(self) -> None:
        """Raise `InputError` if the directory of a run that trains is gone."""
        if not self.exists():
            raise removed(self.path)

    def config(self) -> dict[str, Any]:
        """The configuration of the run."""
        return read_json(self.config_file)

    def environment(self) -> dict[str, Any]:
        """Versions, devices and command at the start of the run."""
        return read_json(self.environment_file)

    def changed_settings(self, new: Any) -> dict[str, tuple[Any, Any]]:
        """The settings that differ from the run's, by name: the value in the run, and the new."""
        before, after = flatten_config(self.config()), flatten_config(to_json(new))
        pairs = {
            name: (before.get(name, _ABSENT), after.get(name, _ABSENT))
            for name in dict.fromkeys([*before, *after])
        }
        return {name: pair for name, pair in pairs.items() if not _same(*pair)}

    def differing_settings(self, new: Any) -> list[str]:
        """What forbids a resume: each setting that differs, but for larger epochs."""
        return [
            f"{name}: {_as_text(was)} in the run, {_as_text(wanted)} now"
            for name, (was, wanted) in self.changed_settings(new).items()
            if not (name.rsplit(".", 1)[-1] == "epochs" and _is_more(was, wanted))
        ]

    def described_changes(self, new: Any) -> list[str]:
        """Every setting that a fork of this run changes."""
        changed = self.changed_settings(new)
        return [
            f"{name}: {_as_text(was)} -> {_as_text(now)}"
            for name, (was, now) in changed.items()
            if name.removeprefix("fit.") == name or name.removeprefix("fit.") not in changed
        ]

    def source_diff(self) -> str:
        """The changes of the experiment's file since the run began, as a unified diff."""
        if self._experiment is None or not self.experiment_file.is_file():
            return ""
        texts = [self.experiment_file.read_bytes(), _source(Path(self._experiment))]
        old, new = (text.decode(errors="replace").splitlines() for text in texts)
        names = (str(self.experiment_file), str(self._experiment))
        lines = [*difflib.unified_diff(old, new, *names, lineterm="", n=1)]
        more = len(lines) - SHOWN_DIFF_LINES
        return "\n".join(lines[:SHOWN_DIFF_LINES] + ([f"({more} more lines)"] if more > 0 else []))

    def check_same_config(
        self, new: Any, others: Sequence[str] = (), diff: str = "", record: Any = None
    ) -> None:
        """Raise `InputError` if a setting differs from the run's, with both values of each.

        `others` are further differences; `diff` is shown after them. A larger `epochs` is accepted
        and recorded, after the new fingerprint `record`.
        """
        new = to_json(new)
        changed = [*self.differing_settings(new), *others]
        if changed:
            refusal = error(
                f"run directory {self.given}",
                expected="the settings, data and program of the run that it holds "
                "(only epochs may grow)",
                got="; ".join(changed),
                fix="resume with the run's values, choose another directory for a new run, or "
                f'start one from this checkpoint: fork="{self.given}" '
                f"(jdl train --run.fork {self.given})",
            )
            raise InputError(f"{refusal}\n{diff}" if diff else str(refusal))
        if record is not None:
            write_json(self.fingerprint_file, record)
        if flatten_config(self.config()) != flatten_config(new):
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

    def check_modules(self) -> Path | None:
        """The folder of the modules that the experiment imports, after their hashes matched.

        None if it imports none of its own.
        """
        recorded = self.environment().get("modules")
        if not recorded:
            return None
        folder = Path(recorded["folder"])
        found = module_digests(self.experiment_file, folder)
        for name, digest in recorded["sha256"].items():
            if found.get(name) != digest:
                raise error(
                    f"{self.experiment_file}, module {name}",
                    expected=f"the module of that name in {folder}, as the run imported it",
                    got="another content" if name in found else "no such module",
                    fix="restore it, or pass a file with its modules next to it: --experiment "
                    "FILE.py, or jdl.load(run, experiment=...)",
                )
        return folder

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
                    f"run directory {self.given}",
                    expected="a directory that no other process uses",
                    got=f"one in use by process {file.read().strip() or '(unknown)'}",
                    fix="wait for that run or stop it, or choose another directory",
                ) from busy
            owner = os.getpid()
            file.truncate(0)
            file.write(str(owner))
            file.flush()
            try:
                yield
            finally:
                # A child that was forked in the block holds the file open, too, and with it the
                # lock; it must neither keep the lock nor, if it ends the block, release it.
                if os.getpid() == owner:
                    fcntl.flock(file, fcntl.LOCK_UN)


def describe_environment(command: list[str] | None = None) -> dict[str, Any]:
    """Versions, devices and command, to reproduce the run."""
    import jax

    return {
        "jdl": __version__,
        "command": sys.argv if command is None else command,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": {name: package_version(name) for name in _PACKAGES},
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
    }


_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_ABSENT = object()


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


def _same(was: Any, now: Any) -> bool:
    """Whether two settings are equal; 3 is 3.0, but True is not 1."""
    if isinstance(was, list) and isinstance(now, list):
        return len(was) == len(now) and all(map(_same, was, now))
    if all(type(value) in (int, float) for value in (was, now)) and was == now:
        return True
    return _as_text(was) == _as_text(now)


def _as_text(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value)
