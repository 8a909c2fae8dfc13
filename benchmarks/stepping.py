"""What `jdl.fit` runs, without its loop: the same programs, in the form it would take."""

from collections.abc import Callable
from typing import Any


def stepping(learner: Any, data: Any, batch: int, form: str) -> Callable[[int], None]:
    """`run(n)`, which ends when n steps have; `form` is that of `jdl.Options.dispatch`."""
    import jax

    import jdl
    from jdl.run.choosing import chosen
    from jdl.run.dispatch import Programs
    from jdl.run.plan import Options, initial, make_plan

    feed = jdl.Feed(data, batch)
    plan = make_plan(learner, feed, None, 1, None, None, Options(bar=False))
    state = initial(plan.learner, feed, 0)
    programs, at = Programs(plan.learner, feed, state, tried=plan.tried), 0
    advance = programs.advance(chosen(programs, state, form, None), 0)

    def run(n: int) -> None:
        nonlocal state, at
        end = at + n
        while at < end:
            state, metrics, at = advance(state, at, end)
        jax.block_until_ready(metrics)

    return run
