"""What only a program's own main may do: messages, memory, programs kept, other processes."""

import atexit
import gc
import logging
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from jdl.cli.flags import RunFlags
from jdl.run.execution.host_memory import is_for_cpu, keep_freed_pages

if TYPE_CHECKING:
    from jdl.run.distributed.watchdog import Watchdog


def quiet_backend() -> None:
    """Before jax is imported: its backend would print what no user of a command line can use."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def configure_process(cache: bool = True, keep_memory: bool = True, verbose: bool = False) -> None:
    """What only a program's own main may do: messages, memory, programs kept for the next time.

    The environment variable `JDL_HOST_MEMORY=off` leaves memory as the platform has it.
    """
    keep_memory = keep_memory and os.environ.get("JDL_HOST_MEMORY", "on") != "off"
    is_kept = keep_memory and is_for_cpu() and keep_freed_pages()
    import jax

    from jdl.run.distributed.collectives import is_process_0

    if is_kept:
        # Glibc keeps buffers of 64 MB and more for the main thread only, which therefore runs the
        # programs itself. To be said before the backend starts, as it does to know its processes.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    # The collector would go through a million objects once more, just before all of them go.
    atexit.register(gc.freeze)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    level = logging.DEBUG if verbose else logging.INFO
    logging.getLogger("jdl").setLevel(level if is_process_0() else logging.ERROR)
    logging.getLogger("absl").setLevel(logging.WARNING)
    if is_kept:
        logging.getLogger("jdl").debug(
            "host memory: freed pages are kept (JDL_HOST_MEMORY=off: not)"
        )
    if cache:
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        # What jax starts with would keep no program that takes less than a second to compile.
        for name, unset, value in (
            ("jax_compilation_cache_dir", None, str(home / "jdl" / "xla")),
            ("jax_persistent_cache_min_compile_time_secs", 1.0, 0.0),
            ("jax_persistent_cache_min_entry_size_bytes", 0, -1),
        ):
            if getattr(jax.config, name, unset) == unset:
                jax.config.update(name, value)


def join_processes(run: RunFlags) -> AbstractContextManager["Watchdog | None"]:
    """Join the other processes that `--run.coordinator` speaks of; before JAX is used."""
    from jdl.run.distributed.join import join
    from jdl.run.distributed.watchdog import watch_processes

    if run.coordinator is None:
        return nullcontext()
    join(run.coordinator, run.processes, run.process, run.join_timeout)
    return watch_processes(run.heartbeat_timeout, run.join_timeout)
