"""An experiment is read in one sitting, and needs nothing but the public names of jdl."""

import ast
from pathlib import Path
from types import ModuleType

import pytest

import jdl
from tests.experiments.test_experiments import FILES

MAX_LINES = 150


def public_names(module: ModuleType) -> set[str]:
    names = getattr(module, "__all__", None) or dir(module)
    return {name for name in names if not name.startswith("_")}


def inner_imports(tree: ast.Module) -> list[str]:
    """Imports of jdl that name anything but `jdl` itself or one of its public names."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.startswith("jdl.")]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module == "jdl":
                found += [f"jdl.{a.name}" for a in node.names if a.name not in jdl.__all__]
            elif module.startswith("jdl."):
                found.append(module)
    return found


def private_attributes(tree: ast.Module) -> list[str]:
    """Expressions `jdl.a.b` that reach a name which its module does not make public."""
    aliases = {
        alias.asname or alias.name: getattr(jdl, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "jdl"
        for alias in node.names
    }

    def resolve(node: ast.expr) -> object:
        """The module that an expression stands for, or None."""
        if isinstance(node, ast.Name):
            return jdl if node.id == "jdl" else aliases.get(node.id)
        if isinstance(node, ast.Attribute):
            module = resolve(node.value)
            return getattr(module, node.attr, None) if isinstance(module, ModuleType) else None
        return None

    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            module = resolve(node.value)
            if isinstance(module, ModuleType) and node.attr not in public_names(module):
                found.append(ast.unparse(node))
    return found


def dense_lines(tree: ast.Module) -> list[str]:
    """Conditional expressions within each other, and several statements on one line."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.IfExp) and any(
            isinstance(inner, ast.IfExp) for inner in ast.walk(node) if inner is not node
        ):
            found.append(f"nested conditional expression: {ast.unparse(node)}")
        if isinstance(node, ast.Lambda) and any(
            isinstance(inner, ast.Lambda | ast.IfExp) for inner in ast.walk(node.body)
        ):
            found.append(f"lambda that deserves a name: {ast.unparse(node)}")
        for body in (getattr(node, "body", None), getattr(node, "orelse", None)):
            if isinstance(body, list):
                lines = [statement.lineno for statement in body]
                if len(set(lines)) < len(lines):
                    found.append(f"two statements on one line, from line {lines[0]}")
    return found


WITH_JDL = [path for path in FILES if path.stem != "by_hand"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_read_in_one_sitting(path: Path):
    source = path.read_text()
    assert len(source.splitlines()) <= MAX_LINES
    assert dense_lines(ast.parse(source)) == []


@pytest.mark.parametrize("path", WITH_JDL, ids=lambda path: path.stem)
def test_it_imports_public_names_only(path: Path):
    tree = ast.parse(path.read_text())
    assert inner_imports(tree) == []
    assert private_attributes(tree) == []


@pytest.mark.parametrize(
    "source",
    [
        "from jdl.core.errors import check_fields",
        "import jdl.data.split",
        "from jdl import core",
        "from jdl.data import balance",
    ],
)
def test_an_inner_import_is_seen(source: str):
    assert inner_imports(ast.parse(source)) != []


@pytest.mark.parametrize(
    "source",
    [
        "import jdl\njdl.core.tree.count(1)",
        "import jdl\njdl.data.files.read_npy('x')",
        "import jdl\njdl.models.transformer",
        "from jdl import data\ndata.files",
        "import jdl\njdl._PACKAGES",
    ],
)
def test_a_private_attribute_is_seen(source: str):
    assert private_attributes(ast.parse(source)) != []


@pytest.mark.parametrize(
    "source",
    [
        "x = 1 if a else 2 if b else 3",
        "x = (1 if a else 2) if b else 3",
        "f = lambda x: lambda y: x + y",
        "x = 1; y = 2",
    ],
)
def test_a_dense_line_is_seen(source: str):
    assert dense_lines(ast.parse(source)) != []


def test_what_is_allowed_is_let_through():
    source = (
        "import jdl\nfrom jdl import plots\n"
        "jdl.data.balance.oversample(jdl.data.load('digits').train)\n"
        "x = 1 if plots.figure() else 2\njdl.Experiment(remark=lambda result: line(result))"
    )
    tree = ast.parse(source)
    assert inner_imports(tree) == private_attributes(tree) == dense_lines(tree) == []
