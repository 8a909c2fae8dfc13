"""Strict settings for every test: eight devices, no silent rank promotion, no flags left behind."""

import os
from importlib.metadata import version

# Before jax starts its backend. Setting it here, not in a fixture, also covers the doctests.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs here are small and run a few times: most of the time would go into optimizing them. So
# LLVM's expensive passes are left out, and on jaxlib 0.10 the emitters that take half of its
# compile time (later versions have no others). No lower levels, though: with less optimization,
# XLA:CPU computes an activation twice with other rounding, and then no pixel equals the maximum of
# its window (a CNN with BatchNorm and max pooling, jaxlib 0.10.2, levels 0 and 1).
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_llvm_disable_expensive_passes=true "
    + (
        "--xla_backend_optimization_level=2 --xla_cpu_use_fusion_emitters=false "
        if version("jaxlib").startswith("0.10.")
        else "--xla_backend_optimization_level=1 "
    )
    + os.environ.get("XLA_FLAGS", "")
).strip()
os.environ.pop("JDL_DATA_DIR", None)

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = Path(__file__).resolve().parents[1]


LONGEST = (
    *("test_contract", "test_contract_models", "test_resume", "test_cli", "test_pmap"),
    *("test_sweep", "test_fit"),
)


LONG = frozenset((ROOT / "tests" / "long.txt").read_text().splitlines())
"""Tests of some seconds whose neighbours see most of the same: slow ones, too."""


def check_long_tests(items: list[pytest.Item]) -> None:
    """Where a file is collected whole, its lines in long.txt name tests that exist."""
    found = {item.nodeid for item in items}
    files = {nodeid.partition("::")[0] for nodeid in found}
    gone = [line for line in LONG - found if line.partition("::")[0] in files]
    if gone and len(found) > 2000:  # the whole suite, not a choice of its tests
        raise pytest.UsageError(f"tests/long.txt names tests that do not exist: {sorted(gone)}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that the processes of a parallel run end together."""
    check_long_tests(items)
    for item in items:
        if item.nodeid in LONG:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: LONGEST.index(s) if (s := item.path.stem) in LONGEST else 99)


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """Folder of the real MNIST files, given by the user of the tests; skipped where absent."""
    folder = Path(os.environ.get("JDL_TEST_DATA", ROOT.parent / "shared" / "data")) / "mnist"
    if not folder.is_dir():
        pytest.skip("no MNIST files: set JDL_TEST_DATA to a folder that holds mnist/")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _freed_memory_goes_back() -> Iterator[None]:
    """Commands that tests call in this process leave its allocator as it is."""
    from jdl.cli import process

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "keep_freed_pages", lambda: False)
        yield


@pytest.fixture(scope="session")
def program_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home for compiled programs, so that the same one is compiled once for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def kept_programs(program_store: Path) -> Iterator[None]:
    """Compiled programs are kept while a module's tests run, by the command line's settings."""
    from jax.experimental.compilation_cache import compilation_cache

    settings = {
        "jax_compilation_cache_dir": str(program_store / "jdl" / "xla"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
