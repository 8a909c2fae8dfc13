"""Public names: one line each, the object that the line names, nothing loaded before its use."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from jdl.core.lazy import checked_imports, lazy_names

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    ".".join(file.parent.relative_to(ROOT).parts): file
    for file in sorted((ROOT / "jdl").rglob("__init__.py"))
    if "if TYPE_CHECKING:" in file.read_text()
}
"""The files with a table of public names, by package."""


def lines(source: str) -> list[ast.stmt]:
    """The statements of a table."""
    blocks = [
        node.body
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    assert len(blocks) == 1, "one table a file"
    return blocks[0]


def faults(package: str, file: Path) -> list[str]:
    """What is wrong with a table, in words."""
    wrong, seen = [], set()
    for line in lines(file.read_text()):
        text = ast.unparse(line)
        alias = line.names[0] if isinstance(line, ast.ImportFrom) else ast.alias("?")
        module, name = getattr(line, "module", None), alias.name
        if text != f"from {module} import {name} as {name}":
            wrong.append(f"not `from X import Y as Y`: {text}")
        if name in seen:
            wrong.append(f"{name} is defined twice")
        seen.add(name)
        # Whoever imports the module sets the package's attribute of that name to the module.
        is_module = (file.parent / f"{name}.py").is_file() or (file.parent / name).is_dir()
        if is_module and module != package:
            wrong.append(f"{name} is a module of {package}, too")
    return wrong


def test_the_tables_are_found():
    named = ["", ".data", ".metrics", ".models", ".plots", ".tasks"]
    assert {f"jdl{name}" for name in named} <= set(FILES)


@pytest.mark.parametrize("package", FILES)
def test_a_table_has_one_line_for_each_name(package):
    assert faults(package, FILES[package]) == []


TABLE = """
if TYPE_CHECKING:
    {line}
    from jdl.core.types import Model as Model
"""
BAD = {
    "import jax": "not `from X import Y as Y`: {line}",
    "from jdl.core.types import Task": "not `from X import Y as Y`: {line}",
    "from jdl.core.types import Task as Job": "not `from X import Y as Y`: {line}",
    "from jdl.core.types import Task as Task, Mean as Mean": "not `from X import Y as Y`: {line}",
    "from jdl.tasks.types import Model as Model": "Model is defined twice",
    "from odd.place import place as place": "place is a module of odd, too",
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_line_is_seen(tmp_path, line):
    """The control: each kind of fault in a table made up for it."""
    file = tmp_path / "__init__.py"
    file.write_text(TABLE.format(line=line))
    (tmp_path / "place.py").touch()
    assert faults("odd", file) == [BAD[line].format(line=line)]


@pytest.mark.parametrize("package", FILES)
def test_a_name_is_the_object_of_its_line(package):
    module, names = import_module(package), []
    for line in lines(FILES[package].read_text()):
        scope: dict[str, object] = {}
        exec(ast.unparse(line), scope)
        name = line.names[0].name
        assert getattr(module, name) is scope[name], f"{package}.{name}"
        names.append(name)
    assert module.__all__ == dir(module) == sorted(names)


def test_the_table_decides_what_a_name_is(tmp_path):
    file = tmp_path / "__init__.py"
    file.write_text(
        "if TYPE_CHECKING:\n"
        "    from jdl.core.types import Model as Task\n"
        "    from jdl.core.types import absent as absent\n"
    )
    get, names, public = lazy_names("odd", str(file))
    from jdl.core.types import Model

    assert get("Task") is Model and names() == public == ["Task", "absent"]
    with pytest.raises(AttributeError, match="absent"):
        get("absent")


@pytest.mark.parametrize("package", FILES)
def test_an_unknown_name_is_an_attribute_error(package):
    module = import_module(package)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'no_such_name'"):
        module.no_such_name
    assert not hasattr(module, "__wrapped__")
    with pytest.raises(ImportError, match="no_such_name"):
        exec(f"from {package} import no_such_name")


@pytest.mark.parametrize("line", ["import jax", "from . import data as data", "x = 1"])
def test_what_is_no_import_from_a_module_is_refused(tmp_path, line):
    file = tmp_path / "__init__.py"
    file.write_text(f"if TYPE_CHECKING:\n    {line}\n")
    with pytest.raises(SyntaxError, match="line 2: from MODULE import NAME as NAME"):
        list(checked_imports(str(file)))


def test_a_package_loads_nothing_before_a_name_is_used():
    program = f"""
import sys
import {", ".join(FILES)}
heavy = {{"jax", "numpy", "flax", "optax", "matplotlib"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert not [name for name in sys.modules if name.startswith("jdl.core.types")]
jdl.TrainState
assert heavy & set(sys.modules), "the control: a name that needs jax loads it"
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
