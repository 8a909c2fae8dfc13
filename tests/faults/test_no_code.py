"""No module of jdl can execute what it reads: there is no call that could, but for experiments."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.runs import ROOT

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "Popen", "check_output"}
NETWORK = {"socket", "urllib", "http", "requests", "ftplib", "subprocess", "tarfile"}
KNOWN = [
    ("cli/check_sharding.py", "subprocess"),  # jdl itself, once more, on eight fake devices
    ("run/distributed/exit_reporter.py", "subprocess"),  # a shell with one line of jdl's own
    ("run/distributed/exit_reporter.py", "subprocess.Popen"),
    ("run/imports.py", "exec_module"),  # a run folder's program, after its hash was compared
]
"""The places where anything is run."""


def findings(source: str) -> Iterator[str]:
    """Imports and calls that could run what was read, fetch it, or unpack it to the disk."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            yield from {name.split(".")[0] for name in names} & (MODULES | NETWORK)
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id in CALLS:
                yield function.id
            if isinstance(function, ast.Attribute):
                owner = getattr(function.value, "id", "")
                if function.attr in CALLS - {"eval", "compile"} or (owner, function.attr) in {
                    ("builtins", "eval"),
                    ("torch", "load"),
                    ("yaml", "load"),
                    ("np", "load"),
                    ("numpy", "load"),
                }:
                    yield f"{owner}.{function.attr}"
                if function.attr in ("exec_module", "extractall", "extract", "load_module"):
                    yield function.attr
            if any(word.arg == "allow_pickle" for word in node.keywords):
                yield "allow_pickle"


def test_nothing_that_is_read_is_run():
    found = [
        (path.relative_to(ROOT / "jdl").as_posix(), name)
        for path in sorted((ROOT / "jdl").rglob("*.py"))
        for name in findings(path.read_text(encoding="utf-8"))
    ]
    assert found == KNOWN


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "eval(text)",
        "exec(compile(text, 'a', 'exec'))",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "import yaml; yaml.load(text)",
        "import tarfile",
        "archive.extractall()",
        "os.system(text)",
        "import urllib.request",
    ],
)
def test_each_of_them_would_be_found(source):
    assert list(findings(source))


def test_the_page_says_what_is_promised_and_what_is_not():
    page = " ".join(Path(ROOT / "SECURITY.md").read_text(encoding="utf-8").split())
    for words in (
        "treat a stranger's run directory",
        "SHA-256",
        "No data, weights or settings",
        "Report",
    ):
        assert words in page
