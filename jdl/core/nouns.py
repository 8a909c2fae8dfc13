"""Checks that an argument is the noun a function takes, with the call that makes it from another.

A module, a model, a task, a learner and a result follow from each other. Whoever passes one where
the next is wanted gets the missing call as the fix.
"""

from collections.abc import Mapping
from typing import Any

from jdl.core.errors import error
from jdl.core.types import Learner, Model, Task, TrainState

_OPTIMIZER = "optax.adam(1e-3)"
_BUILD = "lambda rngs: MyModule(..., rngs=rngs)"

_NEXT = {
    "Linen module": ("jdl.from_linen({})", "Model"),
    "Linen class": ("jdl.from_linen({}(...))", "Model"),
    "NNX module": (f"jdl.from_nnx({_BUILD})", "Model"),
    "NNX class": ("jdl.from_nnx(lambda rngs: {}(..., rngs=rngs))", "Model"),
    "Model": ("jdl.classification({})", "Task"),
    "Task": (f"jdl.learner({{}}, {_OPTIMIZER})", "Learner"),
    "Learner": ("jdl.fit({}, data)", "Result"),
}
"""The call that makes the next noun of one, and what that is."""

_PARTS = {"Result": {"Learner": "result.learner", "TrainState": "result.state"}}
"""What holds a noun that is wanted."""

_BY_HAND = {
    "Model": "jdl.from_linen(module), jdl.from_nnx(build) or jdl.from_functions(init, apply)",
    "Task": "jdl.classification(model), jdl.regression(model) or jdl.Task(init, loss, predict)",
    "Learner": f"jdl.learner(task, {_OPTIMIZER})",
    "Result": "jdl.fit(learner, data), or jdl.load(run) for a run directory",
    "TrainState": "result.state of an earlier run",
}
"""How each noun is made, for arguments that are no noun at all."""


def check_model(value: Any, where: str) -> None:
    """Raise `InputError` unless `value` is a `Model`.

    >>> check_model("cnn", "classification: model")
    Traceback (most recent call last):
    jdl.core.errors.InputError: classification: model
      expected: a jdl.Model
      got:      'cnn', a str
      fix:      pass jdl.from_linen(module), jdl.from_nnx(build) or jdl.from_functions(init, apply)
    """
    if not isinstance(value, Model):
        raise wrong_noun(value, "Model", where)


def check_task(value: Any, where: str) -> None:
    """Raise `InputError` unless `value` is a `Task`."""
    if not isinstance(value, Task):
        raise wrong_noun(value, "Task", where)


def check_learner(value: Any, where: str) -> None:
    """Raise `InputError` unless `value` is a `Learner`."""
    if not isinstance(value, Learner):
        raise wrong_noun(value, "Learner", where)


def check_callable(value: Any, where: str, expected: str, fix: str) -> None:
    """Raise `InputError` unless `value` can be called.

    >>> check_callable(3, "log", "a function of a row", "pass log=print")
    Traceback (most recent call last):
    jdl.core.errors.InputError: log
      expected: a function of a row
      got:      3, an int
      fix:      pass log=print
    """
    if not callable(value):
        raise error(where, expected=expected, got=describe(value), fix=fix)


def check_optimizer(tx: Any, where: str) -> None:
    """Raise `InputError` unless `tx` is an optax optimizer.

    >>> check_optimizer("adam", "learner: tx")
    Traceback (most recent call last):
    jdl.core.errors.InputError: learner: tx
      expected: an optax optimizer
      got:      'adam', a str
      fix:      pass optax.adam(1e-3), or jdl.optim.by_name("adam", 1e-3)
    """
    if callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None)):
        return
    fix = f"pass {_OPTIMIZER}"
    if isinstance(tx, str):
        fix += f', or jdl.optim.by_name("{tx}", 1e-3)'
    elif isinstance(tx, float | int):
        fix = f"pass the optimizer with this learning rate: optax.adam({tx})"
    elif callable(tx):
        fix = f"call it with a learning rate: {getattr(tx, '__name__', 'optimizer')}(1e-3)"
    raise error(where, expected="an optax optimizer", got=describe(tx), fix=fix)


def check_result(value: Any, where: str) -> None:
    """Raise `InputError` unless `value` has the fields of a `Result`, a state and its learner."""
    if hasattr(value, "state") and hasattr(value, "learner"):
        return
    raise wrong_noun(value, "Result", where)


def wrong_noun(value: Any, wanted: str, where: str) -> Exception:
    """The error of a value that is not the `wanted` noun, with the call that makes it of one."""
    article = "an" if wanted[0] in "AEIOU" else "a"
    return error(
        where, expected=f"{article} jdl.{wanted}", got=describe(value), fix=_fix(value, wanted)
    )


def _fix(value: Any, wanted: str) -> str:
    kind = kind_of(value)
    held = _PARTS.get(kind, {}).get(wanted)
    if held is not None:
        return f"pass {held}"
    if kind == "TrainState" and wanted == "Result":
        return "pass jdl.Result(state, learner, [], None)"
    if wanted == "Result" and kind in ("str", "PosixPath", "WindowsPath"):
        return f"pass jdl.load({str(value)!r})"
    if wanted == "Learner" and kind == "Experiment":
        return "pass experiment.learner, or call experiment.fit()"
    if kind in ("Model", "Task", "Learner") and wanted in ("Model", "Task"):
        later = list(_BY_HAND).index(kind) > list(_BY_HAND).index(wanted)
        if later:
            return f"pass the {wanted.lower()} that this {kind.lower()} was built from"
    call = _chain(value, kind, wanted)
    return f"pass {call}" if call else f"pass {_BY_HAND[wanted]}"


def _chain(value: Any, kind: str, wanted: str) -> str | None:
    """The nested calls from a noun to the wanted one, such as learner(classification(model))."""
    call = value.__name__ if kind.endswith("class") else kind.split()[-1].lower()
    while kind != wanted:
        if kind not in _NEXT:
            return None
        form, kind = _NEXT[kind]
        call = form.format(call)
    return call


def kind_of(value: Any) -> str:
    """The noun that a value is, or the name of its type.

    >>> kind_of(Model(None, None)), kind_of(3)
    ('Model', 'int')
    """
    kind = value if isinstance(value, type) else type(value)
    end = "class" if isinstance(value, type) else "module"
    # By name, because only jdl.models imports Flax's modules.
    for base in kind.__mro__:
        if base.__module__.startswith("flax.linen") and base.__name__ == "Module":
            return f"Linen {end}"
        if base.__module__.startswith("flax.nnx") and base.__name__ == "Module":
            return f"NNX {end}"
    return kind.__name__


def describe(value: Any) -> str:
    """A value and its type, in a few words.

    >>> describe(0.1), describe(len), describe({"mean": 0, "std": 1})
    ('0.1, a float', 'the function len', 'a dict of mean, std')
    """
    kind = kind_of(value)
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(str, value))}" if value else "an empty dict"
    if type(value) in (tuple, list):
        return f"a {kind} of {len(value)}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array, {value.dtype} of shape {tuple(value.shape)}"
    if isinstance(value, str | int | float):
        article = "an" if kind[0] in "aeiou" else "a"
        return f"{value!r}, {article} {kind}"
    if kind.startswith(("Linen", "NNX")):
        name = value.__name__ if isinstance(value, type) else type(value).__name__
        return f"the {kind} {name}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, Model | Task | Learner | TrainState) or kind in ("Result", "Player"):
        return f"a jdl.{kind}"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}"
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"
