"""Public names of a package, loaded on first use."""

import ast
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def lazy_names(
    package: str, file: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package whose names are loaded on first use.

    The block `if TYPE_CHECKING:` in the package's `__init__.py` is the one table of its public
    names: `from jdl.models.mlp import MLP as MLP` gives a name and the module that defines it.

    >>> import jdl.tasks
    >>> get, names, _ = lazy_names("jdl.tasks", jdl.tasks.__file__)
    >>> get("l2").__module__, names()[:2]
    ('jdl.tasks.transforms', ['augment', 'binary_classification'])
    """
    homes = {name: (module, original) for module, original, name in checked_imports(file)}

    def get(name: str) -> Any:
        if name not in homes:
            # A module of the package is found whether or not something has imported it before.
            if not name.startswith("_") and find_spec(f"{package}.{name}") is not None:
                return import_module(f"{package}.{name}")
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, original = homes[name]
        loaded = import_module(module)
        if hasattr(loaded, "__path__") and find_spec(f"{module}.{original}") is not None:
            return import_module(f"{module}.{original}")
        return getattr(loaded, original)

    return get, lambda: sorted(homes), sorted(homes)


def checked_imports(file: str) -> Iterator[tuple[str, str, str]]:
    """The imports in a file's `if TYPE_CHECKING:` block, as (module, its name, public name)."""
    for statement in ast.parse(Path(file).read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            for line in statement.body:
                if not (isinstance(line, ast.ImportFrom) and line.module and not line.level):
                    raise SyntaxError(
                        f"{file}, line {line.lineno}: from MODULE import NAME as NAME"
                    )
                for name in line.names:
                    yield line.module, name.name, name.asname or name.name
