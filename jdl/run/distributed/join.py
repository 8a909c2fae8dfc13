"""Joining the processes that train one learner."""

import os
import sys
import threading

import jax

from jdl.core.errors import InputError, error


def join(coordinator: str, count: int | None, index: int | None, seconds: float) -> None:
    """Join as process `index` of `count`; returns when all processes have joined.

    `coordinator` is HOST:PORT of process 0, or "auto" if JAX can find the processes itself (SLURM,
    Cloud TPU, Open MPI). If a process is missing after `seconds`, the program exits with code 4.

    Raises `InputError` for an incomplete address, if JAX has been used already, and if "auto" finds
    no processes.
    """
    auto = coordinator == "auto"
    if not auto:
        _check_place(coordinator, count, index)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # JAX would handle SIGTERM itself; a run saves its state and then stops.
    jax.config.update("jax_enable_preemption_service", False)
    who = "processes" if index is None else f"process {index} of {count}"
    what = f"{who} at {coordinator}"
    patience = threading.Timer(seconds, _give_up, (what, seconds))
    patience.daemon = True
    patience.start()
    try:
        jax.distributed.initialize(
            None if auto else coordinator,
            count,
            index,
            initialization_timeout=round(seconds) + 30,  # longer: JAX's message gives no fix
            heartbeat_timeout_seconds=30,  # a fallback; the watchdog is faster
            shutdown_timeout_seconds=30,
        )
    except (RuntimeError, ValueError) as failure:
        raise _not_joined(what, failure) from failure
    finally:
        patience.cancel()


def _check_place(coordinator: str, count: int | None, index: int | None) -> None:
    if count is None or index is None or not coordinator.rpartition(":")[0]:
        raise error(
            "--run.coordinator",
            expected="HOST:PORT with --run.processes N --run.process I, or auto",
            got=f"{coordinator}, processes {count}, process {index}",
            fix="pass --run.coordinator localhost:9876 --run.processes 2 --run.process 0",
        )
    if not 0 <= index < count:
        raise error(
            "--run.process",
            expected=f"an index from 0 to {count - 1}, with --run.processes {count}",
            got=str(index),
            fix="number the processes from 0",
        )


def _give_up(what: str, seconds: float) -> None:
    """Exit from a timer thread, because the main thread is blocked inside JAX."""
    missing = error(
        what,
        expected=f"all processes within {seconds:g} s (--run.join-timeout)",
        got="at least one missing process",
        fix="start every process with the same address and count, each with its own index",
    )
    print(f"jdl: {missing}", file=sys.stderr, flush=True)
    os._exit(4)


def _not_joined(what: str, failure: Exception) -> InputError:
    reason = str(failure).splitlines()[0]
    if isinstance(failure, ValueError):
        expected = "SLURM, Cloud TPU or Open MPI, for --run.coordinator auto"
        fix = "pass --run.coordinator HOST:PORT, --run.processes and --run.process"
    elif "before" in reason:
        expected = "an experiment file that computes nothing when it is imported"
        fix = "move JAX computations into experiment(config)"
    else:
        expected, fix = "an address that every process can reach", "choose another port or host"
    return error(what, expected=expected, got=reason[:300], fix=fix)
