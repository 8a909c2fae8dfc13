"""Environments of their own for tests: an empty one, or this one with other packages on top.

A test of packages that the `test` extra leaves out, or whose pins clash with it, is marked slow,
makes an environment, and runs a program or a file of tests there:

    environment("dp-accounting>=0.4").test("tests/privacy/test_accountant.py")

The file itself begins with `pytest.importorskip("dp_accounting")`, so that elsewhere it is skipped.
`python -m tests.support.environments 3.13` prints the interpreter of a version, or fails.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".venv-tests"
"""Where `environment` keeps what it has made; `make clean` deletes it."""
VERSIONS = ("3.11", "3.12", "3.13")
"""Those of Python that jdl supports."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


class Environment(NamedTuple):
    """A virtual environment."""

    path: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin" / "python"

    def run(
        self, *arguments: str | Path, cwd: Path, status: int | None = 0, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run its interpreter in a folder; an exit code other than `status` fails the test.

        This process's import path, flags and caches do not reach it; how pip is configured does.
        """
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "PYTEST", "XLA", "JAX", "JDL", "XDG", "VIRTUAL_ENV"))
        }
        own = {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(self.path / "cache")}
        done = subprocess.run(
            [self.python, *arguments],
            cwd=cwd,
            env=inherited | own,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if status is not None and done.returncode != status:
            shown = f"{done.stdout[-3_000:]}\n{done.stderr[-6_000:]}"
            raise AssertionError(f"{arguments} ended with code {done.returncode}:\n{shown}")
        return done

    def install(self, *requirements: str | Path, timeout: float = 1_500) -> None:
        """Install packages."""
        quiet = ("--quiet", "--disable-pip-version-check", "--no-warn-conflicts")
        self.run("-m", "pip", "install", *quiet, *requirements, cwd=self.path, timeout=timeout)

    def version(self, package: str) -> str:
        """The version of a package that a program in it finds."""
        code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
        return self.run("-c", code, package, cwd=self.path).stdout.strip()

    def test(self, *paths: str, timeout: float = 1_500) -> None:
        """Run tests of the checkout in it; that none ran, or one was skipped, is a failure."""
        options = ("-p", "no:cacheprovider", "-m", "", "-rs")
        done = self.run("-m", "pytest", *options, *paths, cwd=ROOT, timeout=timeout)
        assert "skipped" not in done.stdout.splitlines()[-1], done.stdout[-3_000:]


def find_python(version: str) -> Path | None:
    """The interpreter of a version such as "3.12": on the path, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    installed = sorted((pyenv / "versions").glob(f"{version}.*/bin/python"), reverse=True)
    for candidate in (shutil.which(f"python{version}"), *installed):
        if candidate and _version(candidate) == version:
            return Path(candidate)
    return None


def _version(python: str | Path) -> str | None:
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def empty_environment(path: Path, python: Path | None = None) -> Environment:
    """An environment with nothing in it but pip."""
    subprocess.run([python or sys.executable, "-m", "venv", path], check=True)
    return Environment(path)


def on_top(path: Path, base: Path, *requirements: str | Path) -> Environment:
    """An environment that finds its own packages first, and those of the folder `base` after them.

    It takes seconds and little space: only what `base` lacks, or has in another version, is
    installed.
    """
    made = empty_environment(path, _interpreter(base))
    line = f"import site; site.addsitedir({str(base)!r})\n"
    (_site_packages(made.path) / "base.pth").write_text(line)
    made.install(*requirements)
    return made


def environment(*requirements: str) -> Environment:
    """This process's packages with others on top, kept for the next run of the tests.

    >>> environment("dp-accounting>=0.4")  # doctest: +SKIP
    Environment(path=PosixPath('.../.venv-tests/dp-accounting-3f0c6e9a-1b24c0d5'))
    """
    here = sorted(f"{d.name}=={d.version}" for d in importlib.metadata.distributions())
    package = re.split(r"[^\w.-]", requirements[0])[0]
    name = f"{package}-{_digest(requirements)}"
    path = FOLDER / f"{name}-{_digest((sys.executable, here))}"
    with _locked(FOLDER / f"{name}.lock"):
        if not (path / "made").exists():
            for old in FOLDER.glob(f"{name}-*"):
                shutil.rmtree(old, ignore_errors=True)
            on_top(path, Path(sysconfig.get_path("purelib")), *requirements)
            (path / "made").touch()
    return Environment(path)


def requirements(extra: str = "") -> list[str]:
    """What pyproject.toml requires, or one of its extras does; extras of jdl are resolved."""
    if not extra:
        return list(PROJECT["dependencies"])
    found = []
    for line in PROJECT["optional-dependencies"][extra]:
        own = re.fullmatch(rf"{PROJECT['name']}\[(.+)\]", line)
        each = [requirements(name.strip()) for name in own[1].split(",")] if own else [[line]]
        found += [requirement for some in each for requirement in some]
    return found


def floors(lines: list[str]) -> dict[str, str]:
    """The lowest version of each requirement; every one must have one."""
    found = {}
    for line in lines:
        match = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)", line.replace(" ", ""))
        assert match, f"{line!r} has no lowest version, or more than that"
        found[match[1]] = match[2]
    return found


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:8]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _site_packages(environment: Path) -> Path:
    return next((environment / "lib").glob("python*/site-packages"))


def _interpreter(site_packages: Path) -> Path:
    """The interpreter whose packages these are."""
    return site_packages.parents[2] / "bin" / "python"


def main() -> int:
    python = find_python(sys.argv[1])
    if python is None:
        print(f"Python {sys.argv[1]} is not on this machine", file=sys.stderr)
        return 1
    print(python)
    return 0


if __name__ == "__main__":
    sys.exit(main())
