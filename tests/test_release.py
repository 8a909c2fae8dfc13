"""What a user installs: the built package, its extras, the lowest versions of what it needs."""

import functools
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import jdl
from tests.support.environments import (
    PROJECT,
    ROOT,
    VERSIONS,
    Environment,
    empty_environment,
    environment,
    find_python,
    floors,
    on_top,
    requirements,
)

COMMON = """
import logging, sys
import numpy as np, optax
import jdl

def train(data, **options):
    learner = jdl.learner(
        jdl.regression(jdl.from_linen(jdl.models.MLP((), outputs=1))), optax.sgd(0.1)
    )
    return jdl.fit(learner, data, batch_size=4, epochs=1, **options)

x = np.ones((8, 2), np.float32)
data = {"x": x, "y": x[:, :1]}
"""


class Use(NamedTuple):
    """A program that needs an extra, and the module that it misses without it."""

    module: str
    code: str


USES = {
    "report": Use(
        "matplotlib",
        """
        import pathlib, tempfile
        figure = jdl.plots.activations(np.ones((3, 3, 1, 2)), np.ones((2, 8, 8, 1)))
        folder = pathlib.Path(tempfile.mkdtemp())
        (folder / "class").mkdir()
        figure.savefig(folder / "class" / "0.png")
        images, names = jdl.data.read_images(folder, (8, 8))
        assert images["x"].shape[:3] == (1, 8, 8) and list(names) == ["class"]
        """,
    ),
    "datasets": Use("sklearn", "assert len(jdl.data.load('iris').train['x']) > 80"),
    "mnist1d": Use("mnist1d", "assert jdl.data.load('mnist1d').train['x'].shape[1:] == (40, 1)"),
    "augment": Use(
        "dm_pix",
        """
        import jax
        change = jdl.data.augmentations.brightness(0.1)
        images = np.full((2, 4, 4, 3), 0.5, np.float32)
        assert not np.array_equal(change(jax.random.key(0), images), images)
        """,
    ),
}
"""Each extra by the one thing that it is for; `tensorboard` is a tracker, tested by itself."""

TENSORBOARD = """
logging.basicConfig(level=logging.DEBUG, format="%(message)s", stream=sys.stdout)
logging.getLogger("jax").setLevel(logging.ERROR)
train(data, run_dir="tensorboard_run", options=jdl.Options(bar=False))
import pathlib
print(len(list(pathlib.Path("tensorboard_run").rglob("events.out.tfevents.*"))), "event files")
"""


def program(extra: str) -> str:
    """The program of an extra, whole."""
    return COMMON + textwrap.dedent(USES[extra].code)


def test_the_version_is_said_once():
    version = PROJECT["version"]
    assert re.search(rf"^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert jdl.__version__ == importlib.metadata.version("jdl-jax")
    assert "version" not in PROJECT.get("dynamic", [])


def test_the_versions_of_python_are_those_that_are_tested():
    prefix = "Programming Language :: Python :: "
    listed = [line.removeprefix(prefix) for line in PROJECT["classifiers"] if prefix in line]
    assert tuple(listed) == VERSIONS and PROJECT["requires-python"] == f">={VERSIONS[0]}"


def test_all_is_every_extra_of_a_user_and_the_tests_need_little_more():
    extras = set(PROJECT["optional-dependencies"])
    tools = {"all", "test", "parity", "bench", "docs", "tpu", "cuda12", "cuda13"}
    assert set(USES) | {"tensorboard"} == extras - tools
    everything = [line for extra in extras - tools for line in requirements(extra)]
    assert sorted(requirements("all")) == sorted(everything)
    more = set(floors(requirements("test"))) - set(floors(everything))
    assert more <= {
        *("chex", "pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "ruff", "pyright"),
    }, "a heavy package belongs to an environment of its own: tests/support/environments.py"


@pytest.mark.parametrize("extra", USES)
def test_what_needs_an_extra_names_it_where_it_is_absent(extra, monkeypatch):
    monkeypatch.setitem(sys.modules, USES[extra].module, None)
    for name in [name for name in sys.modules if name.startswith(f"{USES[extra].module}.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(jdl.InputError, match=rf'pip install "jdl-jax\[{extra}\]"'):
        exec(program(extra), {})


# From here on: environments, built and deleted.


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """A folder with the wheel and the source distribution, as `make dist` builds them."""
    folder = tmp_path_factory.mktemp("dist")
    environment("build>=1.2").run("-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


def tracked() -> set[str]:
    """The files of the checkout that git knows."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout to compare with")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


@pytest.mark.slow
def test_the_wheel_has_the_package_and_nothing_else(dist):
    (wheel,) = dist.glob("*.whl")
    assert wheel.name == f"jdl_jax-{PROJECT['version']}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        about = f"jdl_jax-{PROJECT['version']}.dist-info/"
        metadata = archive.read(f"{about}METADATA").decode()
        commands = archive.read(f"{about}entry_points.txt").decode()
    assert {name for name in names if not name.startswith(about)} == {
        name for name in tracked() if name.startswith("jdl/")
    }
    assert f"{about}licenses/LICENSE" in names and "jdl/py.typed" in names
    assert "jdl = jdl.cli.main:command" in commands
    assert f"\nVersion: {PROJECT['version']}\n" in metadata and "\n# jdl\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    for version in VERSIONS:
        assert f"\nClassifier: Programming Language :: Python :: {version}\n" in metadata


@pytest.mark.slow
def test_the_source_distribution_runs_its_tests(dist, tmp_path):
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    names = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    without = {name for name in tracked() if name.startswith(".")}
    assert names - {"PKG-INFO", ".gitignore"} == tracked() - without
    pytest_in = functools.partial(
        subprocess.run, cwd=source, capture_output=True, text=True, timeout=1_200
    )
    python = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    collected = pytest_in([*python, "--collect-only"])
    assert collected.returncode == 0, collected.stdout[-3_000:] + collected.stderr[-3_000:]
    few = ("tests/core", "tests/test_imports.py", "tests/faults/test_no_code.py", "jdl/core")
    ran = pytest_in([*python, "-m", "not slow", *few])
    assert ran.returncode == 0, ran.stdout[-3_000:] + ran.stderr[-3_000:]


class Installed(NamedTuple):
    """An environment with the wheel and nothing that it does not require, and a run of it."""

    environment: Environment
    wheel: Path
    folder: Path

    def jdl(self, *arguments: str, where: Environment | None = None, status: int = 0) -> str:
        """What a command prints, on both streams."""
        done = (where or self.environment).run(
            "-m", "jdl.cli", *arguments, cwd=self.folder, status=status
        )
        return done.stdout + done.stderr

    def with_extra(self, extra: str) -> Environment:
        """The same environment with an extra."""
        base = next((self.environment.path / "lib").glob("python*/site-packages"))
        return on_top(self.folder / f"with-{extra}", base, f"{self.wheel}[{extra}]")


def install(folder: Path, python: Path | None, *requirements: str | Path) -> Environment:
    """An empty environment, then packages."""
    made = empty_environment(folder / "environment", python)
    made.install(*requirements)
    work = folder / "work"
    work.mkdir()
    shutil.copy(ROOT / "tests" / "support" / "short_run.py", work)
    return made


@pytest.fixture(scope="module", params=VERSIONS)
def installed(request, dist, tmp_path_factory) -> Iterator[Installed]:
    """The wheel in an empty environment of each version of Python; it is gone afterwards."""
    python = find_python(request.param)
    if python is None:
        pytest.skip(f"Python {request.param} is not on this machine")
    folder = tmp_path_factory.mktemp(f"python-{request.param}")
    (wheel,) = dist.glob("*.whl")
    yield Installed(install(folder, python, wheel), wheel, folder / "work")
    shutil.rmtree(folder)


def train_and_resume(installed: Installed) -> None:
    """Train an epoch, resume for a second one, evaluate; a run of two epochs gives the same."""
    for epochs in ("1", "2"):
        printed = installed.jdl("train", "short_run.py", "--run.dir", "run", "--epochs", epochs)
        assert "malformed" not in printed, printed
    installed.jdl("train", "short_run.py", "--run.dir", "whole", "--epochs", "2")
    results = {run: installed.jdl("evaluate", run) for run in ("run", "whole")}
    assert results["run"] == results["whole"] and "malformed" not in results["run"]
    found = re.search(r"test accuracy (\S+)", results["run"])
    assert found and float(found[1]) > 0.7, results["run"]
    logs = [
        [json.loads(line) for line in (installed.folder / run / "metrics.jsonl").open()]
        for run in ("run", "whole")
    ]
    losses = [[row["loss"] for row in log if row["split"] == "valid"][-1] for log in logs]
    assert losses[0] == losses[1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_trains_evaluates_and_reports_from_an_empty_environment(installed):
    here = installed.environment
    where = here.run("-c", "import jdl; print(jdl.__file__)", cwd=installed.folder).stdout
    assert Path(where.strip()).is_relative_to(here.path), "it is not the installed package"
    command = here.path / "bin" / "jdl"
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout == f"jdl {PROJECT['version']}\n"
    train_and_resume(installed)
    for extra in USES:
        failed = here.run("-c", program(extra), cwd=installed.folder, status=1)
        assert f'pip install "jdl-jax[{extra}]"' in failed.stderr, failed.stderr[-2_000:]
    logged = here.run("-c", COMMON + TENSORBOARD, cwd=installed.folder).stdout
    assert 'pip install "jdl-jax[tensorboard]"' in logged and "0 event files" in logged
    assert 'pip install "jdl-jax[report]"' in installed.jdl("report", "run", status=2)
    with_report = installed.with_extra("report")
    assert "report.html" in installed.jdl("report", "run", where=with_report)
    page = (installed.folder / "run" / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page or "data:image" in page


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("installed", ["3.11"], indirect=True)
@pytest.mark.parametrize("extra", [*USES, "tensorboard", "all"])
def test_each_extra_brings_what_it_is_for(installed, extra):
    if extra not in PROJECT["optional-dependencies"]:
        pytest.fail(f"there is no extra {extra}")
    place = installed.with_extra(extra)
    for each in USES if extra == "all" else {extra} & set(USES):
        place.run("-c", program(each), cwd=installed.folder)
    if extra in ("all", "tensorboard"):
        shutil.rmtree(installed.folder / "tensorboard_run", ignore_errors=True)
        logged = place.run("-c", COMMON + TENSORBOARD, cwd=installed.folder).stdout
        assert "1 event files" in logged
    shutil.rmtree(place.path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_lowest_versions_that_are_declared_train_and_resume(dist, tmp_path):
    python = find_python(VERSIONS[0])
    if python is None:
        pytest.skip(f"Python {VERSIONS[0]} is not on this machine")
    lowest = floors([*requirements(), *requirements("all")])
    (wheel,) = dist.glob("*.whl")
    pinned = [f"{name}=={version}" for name, version in lowest.items()]
    made = install(tmp_path, python, *pinned, wheel)
    for name, version in lowest.items():
        assert made.version(name).startswith(version), name
    run = Installed(made, wheel, tmp_path / "work")
    train_and_resume(run)
    assert "report.html" in run.jdl("report", "run")
    for extra in USES:
        made.run("-c", program(extra), cwd=run.folder)
    assert "1 event files" in made.run("-c", COMMON + TENSORBOARD, cwd=run.folder).stdout
    shutil.rmtree(tmp_path)


@pytest.mark.slow
def test_an_environment_has_its_own_packages_over_those_of_the_tests():
    other = environment("iniconfig==2.0.0")
    assert other.version("iniconfig") == "2.0.0" != importlib.metadata.version("iniconfig")
    assert other.version("jax") == importlib.metadata.version("jax")
    assert environment("iniconfig==2.0.0") == other
    other.test("jdl/core/text.py")
    with pytest.raises(AssertionError, match="ended with code 5"):
        other.test("tests/support/short_run.py")  # it has no test
