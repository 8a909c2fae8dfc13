"""What may import what: the rule of the design, read from the source of every module."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Each place may import itself and what is listed.
LOWER = {
    "core": set(),
    "plots": {"core"},
    "data": {"core", "plots"},
    "models": {"core", "plots"},
    "metrics": {"core", "plots"},
    "optim": {"core", "plots"},
}
LOWER["tasks"] = {"core", "plots", "metrics", "models", "optim"}
LOWER["learn"] = {"core", "plots", "metrics", "optim", "tasks"}
LOWER["parallel"] = {*LOWER["learn"], "learn"}
LOWER["run"] = {*LOWER}
for _place in ("understand", "privacy", "robustness", "search", "interop"):
    LOWER[_place] = {*LOWER["run"], "run"}
LOWER["report"] = {*LOWER}
LOWER["cli"] = {*LOWER}
# What each place may import from outside the standard library, where that is limited.
OUTSIDE = {"core": {"jax", "flax.struct", "numpy"}}
ONLY_MODELS = ("flax.linen", "flax.nnx")


def imports(tree: ast.AST, package: str) -> set[str]:
    """Full names of what a module imports; those for type checkers only are left out."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(filter(None, (above, node.module)))
            found |= {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            found |= imports(ast.Module(node.orelse, []), package)
        else:
            found |= imports(node, package)
    return found


def modules(root: Path) -> dict[str, set[str]]:
    """Every module of the package `jdl` under `root`, and what it imports."""
    result = {}
    for file in sorted((root / "jdl").rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        package = name if is_package else name.rpartition(".")[0]
        result[name] = imports(ast.parse(file.read_text()), package)
    return result


def within(name: str, whole: str) -> bool:
    return name == whole or name.startswith(whole + ".")


def module_of(name: str, known: set[str]) -> str | None:
    """The module of jdl that an imported name lies in, if any."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or None


def breaches(root: Path) -> list[str]:
    """Every breach of the rule, in words."""
    found = modules(root)
    wrong = []
    for module, names in found.items():
        place = [*module.split("."), "(root)"][1]
        if place == "(root)":
            wrong += [f"{module} imports {n}" for n in sorted(names) if _outside(n)]
            continue
        if place not in LOWER:
            wrong.append(f"{module} is in no place of the design")
            continue
        for name in sorted(names):
            target = name.split(".")[1] if within(name, "jdl") and "." in name else None
            if target in LOWER and target != place and target not in LOWER[place]:
                wrong.append(f"{module} imports {name}")
            if place in ("learn", "parallel") and target in ("models", "data"):
                wrong.append(f"{module} imports {name}")
            if place != "models" and any(within(name, only) for only in ONLY_MODELS):
                wrong.append(f"{module} imports {name}")
            allowed = OUTSIDE.get(place)
            if allowed and _outside(name) and not any(within(name, a) for a in allowed):
                wrong.append(f"{module} imports {name}")
    return sorted(set(wrong)) + cycles(found)


def _outside(name: str) -> bool:
    top = name.split(".")[0]
    return top != "jdl" and top not in sys.stdlib_module_names


def cycles(found: dict[str, set[str]]) -> list[str]:
    """Modules that import each other, by whatever way round."""
    known = set(found)
    graph = {}
    for module, names in found.items():
        targets = {module_of(name, known) for name in names if within(name, "jdl")}
        # `from jdl import x` runs jdl/__init__, which loads nothing by itself.
        graph[module] = {t for t in targets if t and t != "jdl" and t != module}
    wrong, done = [], set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            wrong.append("cycle: " + " -> ".join((*path[path.index(module) :], module)))
        elif module not in done:
            for target in sorted(graph[module]):
                walk(target, (*path, module))
            done.add(module)

    for module in sorted(graph):
        walk(module, ())
    return wrong


def test_the_rule_holds():
    found = modules(ROOT)
    assert len(found) > 30 and "jax" in found["jdl.core.types"], "the modules were not read"
    assert breaches(ROOT) == []


BREACHES = {
    "core/types.py": ("import optax", "jdl.core.types imports optax"),
    "core/tree.py": ("from jdl import metrics", "jdl.core.tree imports jdl.metrics"),
    "data/feed.py": ("from jdl.models import MLP", "jdl.data.feed imports jdl.models.MLP"),
    "models/mlp.py": ("from ..data import feed", "jdl.models.mlp imports jdl.data.feed"),
    "tasks/supervised.py": (
        "from jdl.learn.learner import learner",
        "jdl.tasks.supervised imports jdl.learn.learner.learner",
    ),
    "learn/learner.py": (
        "def f():\n    import jdl.models.mlp",
        "jdl.learn.learner imports jdl.models.mlp",
    ),
    "learn/game.py": (
        "from jdl.data.feed import Feed", "jdl.learn.game imports jdl.data.feed.Feed"
    ),
    "learn/guard.py": (
        "from jdl.parallel import mesh", "jdl.learn.guard imports jdl.parallel.mesh"
    ),
    "parallel/shard.py": (
        "if True:\n    from flax import nnx", "jdl.parallel.shard imports flax.nnx"
    ),
    "run/fit.py": (
        "from jdl.understand.words import say", "jdl.run.fit imports jdl.understand.words.say"
    ),
    "optim.py": ("from flax import linen as nn", "jdl.optim imports flax.linen"),
    "odd/thing.py": ("", "jdl.odd.thing is in no place of the design"),
    "__init__.py": ("import jax", "jdl imports jax"),
}  # fmt: skip


@pytest.mark.parametrize("file", BREACHES)
def test_a_breach_is_seen(tmp_path, file):
    """The control: each kind of breach in a tree made up for it."""
    source, words = BREACHES[file]
    write(tmp_path, {file: source})
    assert breaches(tmp_path) == [words]


def test_a_cycle_is_seen(tmp_path):
    write(tmp_path, {
        "data/a.py": "from jdl.data.b import x",
        "data/b.py": "def f():\n    from . import c",
        "data/c.py": "import jdl.data.a",
    })  # fmt: skip
    assert breaches(tmp_path) == ["cycle: jdl.data.a -> jdl.data.b -> jdl.data.c -> jdl.data.a"]


def test_what_is_allowed_is_let_through(tmp_path):
    write(tmp_path, {
        "__init__.py": "from importlib import import_module\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import jax\n    from jdl.cli.main import main",
        "core/types.py": "import jax.numpy as jnp\nfrom flax import struct",
        "models/mlp.py": "from flax import linen as nn\nfrom jdl.core.types import Model",
        "learn/learner.py": '"""\n>>> import jdl.models\n"""\nfrom jdl.core.types import Learner',
        "cli/main.py": "from jdl.run.fit import fit\nfrom jdl import data",
        "run/fit.py": "from jdl.parallel.mesh import mesh\nfrom jdl.data.feed import Feed",
    })  # fmt: skip
    assert breaches(tmp_path) == []


def write(root: Path, files: dict[str, str]) -> None:
    for name, source in files.items():
        path = root / "jdl" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)


LIGHT = """
import os, sys
before = dict(os.environ)
import jdl
heavy = [m for m in ("jax", "jaxlib", "flax", "optax", "numpy", "orbax") if m in sys.modules]
assert not heavy, heavy
assert dict(os.environ) == before, "a flag was set"
assert set(jdl.__all__) <= set(dir(jdl))
"""

LAZY = """
import sys
import jax
before = dict(jax.config.values)
import jdl
jdl.from_linen, jdl.models.MLP
assert "flax.nnx" not in sys.modules, "it takes a quarter of a second, and few need it"
for name in jdl.__all__:
    getattr(jdl, name)
after = dict(jax.config.values)
changed = sorted(name for name in before if before[name] != after[name])
assert not changed, changed
assert not jax._src.xla_bridge._backends, "a backend was started"
import typing
missing = set(jdl.__all__) - set(dir(jdl))
assert not missing, missing
try:
    jdl.no_such_name
except AttributeError as error:
    assert "no_such_name" in str(error)
else:
    raise AssertionError
"""


@pytest.mark.parametrize("program", [LIGHT, LAZY], ids=["light", "lazy"])
def test_importing_jdl_loads_little_and_sets_no_flag(program):
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
