"""One answer of an ensemble: its members vote by their mean probability."""

import numpy as np


def mean_over_members(outputs: np.ndarray, output: str | None) -> np.ndarray:
    r"""The outputs of an ensemble's average, from those of its members, `(members, ...)`.

    Class logits become $\log \frac1K\sum_k \mathrm{softmax}(z_k)$ and binary ones the logit of the
    mean probability, so that the most likely class is the one with the highest mean probability,
    which is not always the one with the highest mean logit. Other outputs are averaged. `output` is
    that of `Info`.

    >>> logits = np.array([[[9.0, 0.0]], [[-2.0, 0.0]], [[-2.0, 0.0]]])
    >>> mean_over_members(logits, "class_logits").argmax(-1), logits.mean(0).argmax(-1)
    (array([1]), array([0]))
    """
    if output not in ("class_logits", "token_logits", "binary_logits"):
        return outputs.mean(0)
    logits = outputs.astype(np.float64)
    if output == "binary_logits":
        return _log_mean(_log_sigmoid(logits)) - _log_mean(_log_sigmoid(-logits))
    return _log_mean(logits - np.logaddexp.reduce(logits, -1, keepdims=True))


def _log_mean(logs: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(logs, 0) - np.log(len(logs))


def _log_sigmoid(logits: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -logits)
