"""Settings of the whole process, which only a program may change, never the library."""

import atexit
import gc
import logging
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jdl.cli.flags import RunFlags
from jdl.run.execution.host_memory import is_for_cpu, keep_freed_pages

if TYPE_CHECKING:
    from jdl.run.distributed.watchdog import Watchdog


def quiet_backend() -> None:
    """Silence the logs of JAX's backend; call it before jax is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def configure_process(cache: bool = True, keep_memory: bool = True, verbose: bool = False) -> None:
    """Set up logging, memory allocation and the compilation cache.

    The environment variable `JDL_HOST_MEMORY=off` leaves the allocator unchanged.
    """
    keep_memory = keep_memory and os.environ.get("JDL_HOST_MEMORY", "on") != "off"
    is_kept = keep_memory and is_for_cpu() and keep_freed_pages()
    import jax

    from jdl.run.distributed.collectives import is_process_0

    if is_kept:
        # Glibc keeps buffers of 64 MB and more for the main thread only, so that thread runs the
        # programs itself. It must be set before the backend starts.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    # Otherwise the collector traverses a million objects at exit.
    atexit.register(gc.freeze)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    level = logging.DEBUG if verbose else logging.INFO
    logging.getLogger("jdl").setLevel(level if is_process_0() else logging.ERROR)
    logging.getLogger("absl").setLevel(logging.WARNING)
    if is_kept:
        logging.getLogger("jdl").debug(
            "host memory: freed pages stay mapped (JDL_HOST_MEMORY=off disables this)"
        )
    if cache:
        folder = cache_folder()
    if cache and folder is not None:
        # By default, jax caches no program that compiles in less than a second.
        for name, unset, value in (
            ("jax_compilation_cache_dir", None, str(folder)),
            ("jax_persistent_cache_min_compile_time_secs", 1.0, 0.0),
            ("jax_persistent_cache_min_entry_size_bytes", 0, -1),
        ):
            if getattr(jax.config, name, unset) == unset:
                jax.config.update(name, value)


def cache_folder() -> Path | None:
    """The folder of compiled programs, made if need be; None, with a line, if it is not writable.

    It lies in `XDG_CACHE_HOME`, by default `~/.cache`.
    """
    try:
        # The standard says that an empty or relative value counts as unset.
        given = Path(os.environ.get("XDG_CACHE_HOME", ""))
        folder = (given if given.is_absolute() else Path.home() / ".cache") / "jdl" / "xla"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
        reason: Any = f"{folder} is not writable"
    except (OSError, RuntimeError) as failed:  # RuntimeError: there is no home
        reason = failed
    logging.getLogger("jdl").info(
        "compiled programs are not cached: %s (set XDG_CACHE_HOME to a folder for them)", reason
    )
    return None


def join_processes(run: RunFlags) -> AbstractContextManager["Watchdog | None"]:
    """Connect to the processes of `--run.coordinator`; call it before JAX is used."""
    from jdl.run.distributed.join import join
    from jdl.run.distributed.watchdog import watch_processes

    if run.coordinator is None:
        return nullcontext()
    join(run.coordinator, run.processes, run.process, run.join_timeout)
    return watch_processes(run.heartbeat_timeout, run.join_timeout)
