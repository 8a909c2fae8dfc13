"""Which form of dispatch a run takes: its folder's, the wanted one, a known one, the faster one."""

import logging
from typing import Any

import numpy as np

from jdl.core.types import TrainState
from jdl.data.feed import Feed
from jdl.run.distributed.collectives import broadcast, on_process_0
from jdl.run.execution import remembered
from jdl.run.execution.autotune import autotune
from jdl.run.execution.executor import DispatchMode, Executor
from jdl.run.storage.run_dir import RunDir
from jdl.run.telemetry.recompilation import signature

log = logging.getLogger("jdl")


def chosen(
    programs: Executor,
    state: TrainState,
    wanted: str,
    folder: RunDir | None,
    steps: float = np.inf,
    likely: str = "loop",
) -> DispatchMode:
    """The form for so many steps: that of the folder, else the wanted one, else the faster one.

    `likely` is the form whose program is looked for first among those known.
    """
    recorded = on_process_0(folder.dispatch) if folder else None
    if recorded is not None:
        if wanted not in ("auto", recorded["form"]):
            told = 'dispatch: the run goes on in the form "%s" that it began with, not "%s"'
            log.warning(told, recorded["form"], wanted)
        return DispatchMode(recorded["form"], recorded["size"])
    if wanted == "auto":
        dispatch, how = _fastest(programs, state, steps, likely)
    else:
        dispatch, how = DispatchMode(wanted, 32), "as told"
    log.info("dispatch: %s, %d steps at a time (%s)", *dispatch, how)
    if folder is not None:
        on_process_0(lambda: folder.write_dispatch(dispatch._asdict()))
    return dispatch


def expected(feed: Feed, wanted: str) -> str:
    """The form that a run will most likely take, known before anything of it is traced.

    It is the wanted one, or that of the last run with such batches. Where it is wrong, both forms
    are traced; a right one saves tracing the other.
    """
    if wanted != "auto":
        return wanted
    known = remembered.recall(_kind(feed))
    return "loop" if known is None else known["form"]


def _kind(feed: Feed) -> str:
    one = feed.batch(0, np.zeros(1, np.int64))
    return f"{feed.batch_size} of {signature({'example': one})}"


def _fastest(
    programs: Executor, state: TrainState, steps: float, likely: str
) -> tuple[DispatchMode, str]:
    """What an earlier run of the program found, else what is found now."""
    likely = broadcast(likely)
    choice, how = _known(programs.text(state, likely), steps), "as measured by an earlier run"
    if choice is None and likely != "loop":
        choice = _known(programs.text(state, "loop"), steps)
    if choice is None:
        dispatch, is_for_all = autotune(programs, state, steps)
        choice, how = dispatch._asdict(), "measured"
        if not is_for_all:
            choice["steps"] = steps
            how = "the other form is not worth compiling for so few steps"
    elif choice["form"] == likely:
        return DispatchMode(choice["form"], choice["size"]), how
    # Known by the loop's text to whoever guesses wrong, by its own to whoever guesses right.
    texts = [programs.text(state, form) for form in {"loop", choice["form"]}]
    remembered.remember([_kind(programs.feed), *texts], choice)
    return DispatchMode(choice["form"], choice["size"]), how


def _known(text: str, steps: float) -> dict[str, Any] | None:
    """What is remembered of a program, if it holds for so many steps."""
    choice = broadcast(remembered.recall(text))
    return choice if choice is not None and steps <= choice.get("steps", np.inf) else None
