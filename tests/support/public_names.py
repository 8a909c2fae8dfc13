"""The public names of jdl: what its tables list, and what the modules in those tables define."""

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

PACKAGES = ("jdl", "jdl.data", "jdl.metrics", "jdl.models", "jdl.plots", "jdl.tasks")
"""The packages with a table of public names."""

MODULES = ("jdl.learn.transforms", "jdl.learn.window")
"""Modules that are public though no table lists them."""


class PublicName(NamedTuple):
    """A name that users write, and what it names."""

    path: str  # "jdl.data.scale.Scaler"
    value: Any

    @property
    def short(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def doc(self) -> str:
        """The docstring, or the string under a constant's definition; '' where there is none."""
        own = self.value.__doc__ if inspect.isclass(self.value) else inspect.getdoc(self.value)
        return own or ""

    @property
    def annotations(self) -> str:
        """The annotations of arguments and result, as one text."""
        values = [self.value]
        if inspect.isclass(self.value):
            values.append(vars(self.value).get("__call__"))
        return " ".join(
            f"{name}: {kind}" for value in values for name, kind in _annotations(value).items()
        )

    @property
    def source(self) -> str:
        """The source of the definition."""
        return textwrap.dedent(inspect.getsource(self.value))


def _annotations(value: Any) -> dict[str, Any]:
    try:
        return inspect.get_annotations(inspect.unwrap(value))
    except TypeError:
        return {}


def defined_in(module: ModuleType) -> list[str]:
    """The public functions and classes of a module: its `__all__`, or what has no underscore."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]


def listed() -> Iterator[PublicName]:
    """Every name that a table lists, and every name of a public module."""
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            yield PublicName(f"{package}.{name}", getattr(module, name))
    for path in MODULES:
        yield PublicName(path, importlib.import_module(path))


def public_names() -> list[PublicName]:
    """Functions and classes that users write, each once, with the shortest path to it."""
    found: dict[int, PublicName] = {}
    for entry in sorted(listed(), key=lambda entry: (entry.path.count("."), entry.path)):
        if inspect.ismodule(entry.value):
            if entry.path in PACKAGES:
                continue
            for name in defined_in(entry.value):
                value = getattr(entry.value, name)
                if callable(value):
                    found.setdefault(id(value), PublicName(f"{entry.path}.{name}", value))
        elif callable(entry.value):
            found.setdefault(id(entry.value), entry)
    return sorted(found.values())


ARRAYS = re.compile(r"Array|ndarray|Batch|PyTree|Key\b|Inputs|Outputs|Params")
SHAPE = re.compile(
    r"\bshapes?\b|\bscalars?\b|\([a-z0-9_]+(, ?[a-z0-9_./*]+)*,?\)|\[[a-z]+(, ?[a-z]+)+\]"
    r"|\baxis\b|\baxes\b",
    re.IGNORECASE,
)
PAPER = re.compile(r"\b(1[89]|20)\d\d\b|arXiv|doi")


def has_example(name: PublicName) -> bool:
    """Whether the docstring shows a call that runs."""
    return ">>>" in name.doc


def takes_arrays(name: PublicName) -> bool:
    """Whether arguments or result are arrays."""
    return bool(ARRAYS.search(name.annotations))


def tells_shapes(name: PublicName) -> bool:
    """Whether the docstring tells a shape, or that there is none."""
    return bool(SHAPE.search(re.sub(r">>>.*", "", name.doc)))


def can_raise(name: PublicName) -> bool:
    """Whether the definition raises, itself or through a function of its own module."""
    module = inspect.getmodule(name.value)
    raisers = {
        node.name
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(n, ast.Raise) for n in ast.walk(node))
    }
    for node in ast.walk(ast.parse(name.source)):
        if isinstance(node, ast.Raise):
            return True
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in raisers or called.startswith(("check_", "require_", "did_you_mean")):
                return True
    return False


def tells_errors(name: PublicName) -> bool:
    """Whether the docstring tells what raises."""
    return bool(re.search(r"\braises?\b|Error\b|Diverged", name.doc, re.IGNORECASE))


def tells_paper(name: PublicName) -> bool:
    """Whether the docstring cites a paper or a book by its year."""
    return bool(PAPER.search(name.doc))
