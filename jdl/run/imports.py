"""Execute the file of an experiment as `python FILE.py` does, with the modules next to it."""

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from jdl.core.errors import InputError, error
from jdl.core.paths import user_path
from jdl.run.storage.modules import local_modules


def load_module(path: str | Path, folder: Path | None = None) -> ModuleType:
    """Execute an experiment file; it must define `Config` and `experiment`.

    Like Python, it finds modules in the file's folder first, or in `folder`, where the copy of a
    run was once. Raises `InputError` for a file that is none, or whose imports fail.
    """
    path = user_path(path)
    if not path.is_file():
        raise error(
            str(path),
            expected="a Python file with an experiment",
            got="a directory" if path.is_dir() else "no such file",
            fix="correct the path",
        )
    name = f"jdl_experiment_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise error(
            str(path),
            expected="a Python file",
            got=f"suffix {path.suffix}" if path.suffix else "no suffix",
            fix="rename the file to end with .py",
        )
    neighbours = path.resolve().parent if folder is None else folder
    _check_not_from_elsewhere(path, neighbours)
    if str(neighbours) not in sys.path:
        sys.path.insert(0, str(neighbours))  # for good: functions may import when they are called
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their module
    try:
        spec.loader.exec_module(module)
    except ImportError as failed:
        raise _failed_import(path, failed) from failed
    missing = [part for part in ("Config", "experiment") if not hasattr(module, part)]
    if missing:
        raise error(
            str(path),
            expected="a frozen dataclass Config and experiment(config) -> jdl.Experiment",
            got=f"no {' and no '.join(missing)}",
            fix="define both; the files in experiments/ are examples",
        )
    return module


def _check_not_from_elsewhere(path: Path, folder: Path) -> None:
    """Raise `InputError` if this process has imported a module of the same name elsewhere."""
    for name, file in local_modules(path, folder).items():
        loaded = getattr(sys.modules.get(name), "__file__", None)
        if loaded is not None and Path(loaded).resolve() != file.resolve():
            raise error(
                f"{path}, module {name}",
                expected=f"{file}",
                got=f"{loaded}, which this process has imported under that name",
                fix="rename one of the two, or use a new process",
            )


def _failed_import(path: Path, failed: ImportError) -> InputError:
    frames = traceback.extract_tb(failed.__traceback__)
    lines = [each.lineno for each in frames if Path(each.filename).resolve() == path.resolve()]
    where = f"{path}, line {lines[-1]}" if lines else str(path)
    if "relative import" in str(failed):
        return error(
            where,
            expected="imports by name: an experiment is a file of its own, not part of a package",
            got=str(failed),
            fix="import the module without the dot; jdl finds it next to the file",
        )
    return error(
        where,
        expected="imports that succeed",
        got=str(failed),
        fix="install the package, put the module next to the file, or, for a run, name the file "
        "that has its modules next to it: --experiment FILE.py",
    )
