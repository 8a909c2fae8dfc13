"""Checks of the arguments of a run, before anything is computed, and the lines that describe it."""

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral
from typing import Any

import jax
import numpy as np
from jax.interpreters import partial_eval

from jdl.core import tree
from jdl.core.errors import InputError, error
from jdl.core.types import Batch, Learner, TrainState
from jdl.data.arrays import as_arrays, check_arrays, check_labels, labels_that_count
from jdl.data.feed import Feed, evaluation_batches
from jdl.data.records import MAX_TOTAL_STEPS, Data
from jdl.parallel.describe import describe_layout
from jdl.run.check_mask import check_mask_weight, with_mask
from jdl.run.evaluate import check_classes, count_classes
from jdl.run.host_metrics import check_gathered, gathered_bytes
from jdl.run.named_sets import check_names, check_rule, has_names, join, sets_of, title
from jdl.run.storage.files import to_json

log = logging.getLogger("jdl")

Arrays = Mapping[str, Any]


def resolve_data(
    data: Arrays | Data | Feed, valid: Arrays | None, batch_size: int, seed: int
) -> tuple[Feed, Arrays | None]:
    """The training feed and the validation set; both are checked for NaN and infinity."""
    if isinstance(data, Data):
        data, valid = data.train, (data.valid or None) if valid is None else valid
    if not isinstance(data, Feed):
        data = Feed(data, _at_most_the_set(batch_size, data), seed)
    if isinstance(data.data, dict):
        check_arrays(data.data, name="training data")
        _warn_of_8_bit_images(data.data)
        data = _without_full_mask(data)
    return data, _checked_sets(valid)


def _checked_sets(valid: Arrays | None) -> Arrays | None:
    """The validation set as arrays, or several by name."""
    check_names(valid)
    sets = {}
    for name, given in sets_of(valid).items():
        sets[name] = as_arrays(given, name=title(name))
        check_arrays(sets[name], name=title(name))
    return sets if has_names(valid) else sets.get("")


def _at_most_the_set(batch_size: int, data: Any) -> int:
    """The batch size, or the size of a set that is smaller."""
    values = list(data.values()) if isinstance(data, Mapping) else [data]
    size = min((len(value) for value in values if hasattr(value, "__len__")), default=0)
    if not (isinstance(batch_size, Integral) and batch_size > size > 0):
        return batch_size
    log.warning("batch_size %d: a batch is the whole set of %d examples", batch_size, size)
    return size


def _without_full_mask(feed: Feed) -> Feed:
    """The feed without a mask that keeps everything: batch statistics do not take a mask."""
    data = feed.data
    if isinstance(data, Mapping) and "mask" in data and np.all(data["mask"] == 1):
        return replace(feed, data={name: data[name] for name in data if name != "mask"})
    return feed


def _warn_of_8_bit_images(data: Arrays) -> None:
    """Warn of raw 8-bit images: they train badly, without an error."""
    for name, value in data.items():
        if value.dtype == np.uint8 and value.ndim == 4:
            log.warning(
                'training data["%s"]: 8-bit images with values up to %d; most networks train '
                "better on x.astype(np.float32) / 255",
                name,
                value.max(),
            )


def check_options(
    valid: Arrays | None, epochs: float, best: str | None, patience: int | None, options: Any
) -> None:
    """Raise `InputError` for options that no run can use."""
    values = {
        "epochs": epochs,
        "log_every": options.log_every,
        "evaluate_every": options.evaluate_every or 1,
        "patience": 1 if patience is None else patience,
    }
    for name, value in values.items():
        number = to_json(value)
        if not (isinstance(number, int | float) and number > 0 and math.isfinite(number)):
            raise error(
                name,
                expected="a finite number above 0",
                got=str(value),
                fix=f"set {name} to 1 or more",
            )
        if name != "epochs" and not (isinstance(number, int) and number <= MAX_TOTAL_STEPS):
            raise error(
                name,
                expected=f"an integer from 1 to {MAX_TOTAL_STEPS}",
                got=repr(value),
                fix=f"set {name} to an integer in this range",
            )
    if options.dispatch not in ("auto", "step", "loop"):
        raise error(
            "dispatch",
            expected='"auto", "step" or "loop"',
            got=repr(options.dispatch),
            fix='use "auto", the default',
        )
    if (best or patience) and valid is None:
        raise error(
            "best" if best else "patience",
            expected="validation data, which decides the best step",
            got="none",
            fix="pass valid={...}, or data with a validation split",
        )
    check_rule(best, patience, valid)


def check_plateau(by: str, valid: Arrays | None) -> None:
    """Raise `InputError` unless there are evaluations that `reduce_on_plateau` can follow."""
    if valid is None:
        raise error(
            "reduce_on_plateau",
            expected=f"validation data, whose {by.partition(' ')[2]} it follows",
            got="none",
            fix="pass valid={...}, or use optax.contrib.reduce_on_plateau for the training loss",
        )
    check_rule(by, None, valid, "reduce_on_plateau: by")


def check_on_data(learner: Learner, state: TrainState, feed: Feed, valid: Arrays | None) -> None:
    """Trace evaluation and `init` with examples of the data, and check labels; log a summary."""
    sample, padded, gathered = feed.batch(0), None, {}
    sets = sets_of(valid)
    for name, data in sets.items():
        padded = next(evaluation_batches(data, feed.batch_size))
        batches = -(-tree.leading(data) // tree.leading(padded))
        sizes = gathered_bytes(jax.eval_shape(learner.evaluate, state, padded))
        gathered |= {join(name, metric): size * batches for metric, size in sizes.items()}
    check_gathered(gathered, "fit: valid")
    check_mask_weight(learner, state, with_mask(sample) if padded is None else padded)
    if isinstance(feed.data, dict):
        named = {title(name): data for name, data in sets.items()}
        for name, data in {"training data": feed.data, **named}.items():
            check_classes(learner, state, sample, data, name)
    for part in (feed.data, *sets.values()):
        check_extreme_examples(learner, part, feed.batch_size)
    if "weight" in sample and "batch_stats" in getattr(state.model_state, "keys", dict)():
        log.warning(
            'data["weight"]: batch normalization takes its statistics over all examples alike'
        )
    log.info("data   %s", describe_data(feed, valid))
    log.info("model  %s", describe_size(state))
    layout = describe_layout(state)
    if layout is not None:
        log.info(layout)


def describe_data(feed: Feed, valid: Arrays | None) -> str:
    """The training set in one line: the number of examples, and type and shape of one.

    >>> describe_data(Feed({"x": np.zeros((6, 3), np.float32)}, batch_size=2), None)
    '6 examples: x float32[3]'
    """
    entries = ", ".join(
        f"{name} {value.dtype}[{','.join(map(str, value.shape[1:]))}]"
        for name, value in feed.batch(0).items()
    )
    sizes = [
        f"{tree.leading(data):,} for validation{f' {name!r}' if name else ''}"
        for name, data in sets_of(valid).items()
    ]
    validation = "".join(f"; {size}" for size in sizes)
    return f"{feed.size:,} examples: {entries}{validation}"


def describe_size(state: TrainState) -> str:
    """The number of parameters in one line; with members, all of them together."""
    members, count = math.prod(state.members), tree.count(state.params)
    return f"{count:,} parameters" + (f" in {members} members" if state.members else "")


def check_labels_of_batches(learner: Learner, state: TrainState, feed: Feed) -> Feed:
    """The feed; that of a source checks the labels of each batch where it is read."""
    if isinstance(feed.data, Mapping):
        return feed
    classes, ignore = count_classes(learner, state, feed.batch(0)), learner.info.ignore
    if classes is None:
        return feed

    def check(batch: Arrays, index: np.ndarray) -> None:
        counts = labels_that_count(batch, ignore)
        try:
            check_labels(batch["y"], classes, 'data["y"]', counts)
        except InputError as wrong:
            raise InputError(f"{wrong}\n  examples: {index.tolist()}") from None

    return replace(feed, check=check)


def warn_of_unread_entries(learner: Learner, state: TrainState, batch: Batch) -> None:
    """Name, once, what a batch holds and no function of the learner reads."""
    rest = dict(batch)
    unread = set(rest) - {"y"}
    for call in (learner.step, learner.evaluate):
        if not unread:
            return  # without tracing the evaluation
        traced = jax.make_jaxpr(call)(state, rest)
        _, used = partial_eval.dce_jaxpr(traced.jaxpr, [True] * len(traced.jaxpr.outvars))
        names = jax.tree.leaves(dict(zip(rest, rest, strict=True)))
        unread -= {name for name, is_used in zip(names, used[-len(rest) :], strict=True) if is_used}
    if unread:
        close = unread & {"weights", "sample_weight", "sample_weights", "class_weight"}
        log.warning(
            "nothing reads data[%s]%s",
            ", ".join(f'"{name}"' for name in sorted(unread)),
            '; the weight of an example is data["weight"]' if close else "",
        )


def check_extreme_examples(learner: Learner, data: Any, batch_size: int) -> None:
    """Call `init` with the examples that hold the smallest and the largest values.

    Tasks check the range of tokens, pixels and labels at `init`. A compiled `init` sees no values,
    and the first batch may not hold the value that is out of range.
    """
    if not isinstance(data, Mapping):
        return
    ends = {
        int(find(value)) // max(1, value[0].size)
        for value in data.values()
        for find in (np.argmin, np.argmax)
        if value.size
    }
    rows = np.resize(sorted(ends), -(-len(ends) // batch_size) * batch_size)
    for index in rows.reshape(-1, batch_size):
        batch = {name: value[index] for name, value in data.items()}
        jax.eval_shape(lambda key, batch=batch: learner.init(key, batch), tree.any_key())
