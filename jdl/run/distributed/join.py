"""Becoming one of several processes that train one learner."""

import os
import sys
import threading

import jax

from jdl.core.errors import InputError, error


def join(coordinator: str, count: int | None, index: int | None, seconds: float) -> None:
    """Become one of several processes; returns when all are there.

    `coordinator` is HOST:PORT of process 0, or "auto" where JAX finds out by itself (SLURM, Cloud
    TPU, Open MPI). Where one is missing after `seconds` the program ends with code 4. Raises
    `InputError` for half an address, where JAX was used already, and where it finds out nothing.
    """
    auto = coordinator == "auto"
    if not auto:
        _check_place(coordinator, count, index)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # JAX would take SIGTERM for itself; a run has its own way to end with everything saved.
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
            initialization_timeout=round(seconds) + 30,  # JAX would end without saying what to do
            heartbeat_timeout_seconds=30,  # a second net: the watch is faster
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
            fix="say --run.coordinator localhost:9876 --run.processes 2 --run.process 0",
        )
    if not 0 <= index < count:
        raise error(
            "--run.process",
            expected=f"from 0 to {count - 1}, with --run.processes {count}",
            got=str(index),
            fix="number the processes from 0",
        )


def _give_up(what: str, seconds: float) -> None:
    """End a process that nobody came to meet; its main thread is inside JAX and hears nothing."""
    missing = error(
        what,
        expected=f"all processes within {seconds:g} s (--run.join-timeout)",
        got="at least one that is missing",
        fix="start every process, with the same address and count and an index of its own",
    )
    print(f"jdl: {missing}", file=sys.stderr, flush=True)
    os._exit(4)


def _not_joined(what: str, failure: Exception) -> InputError:
    reason = str(failure).splitlines()[0]
    if isinstance(failure, ValueError):
        expected, fix = "SLURM, Cloud TPU or Open MPI around it", "say HOST:PORT, and who is who"
    elif "before" in reason:
        expected, fix = "a file that computes nothing when it is imported", "move it to experiment"
    else:
        expected, fix = "an address that every process can reach", "choose another port or host"
    return error(what, expected=expected, got=reason[:300], fix=fix)
