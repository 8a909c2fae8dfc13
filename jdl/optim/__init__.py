"""Schedules and optimizers by name, and a few optax transformations that optax lacks.

Use optax's own optimizers; the names are for configurations.
"""

from typing import TYPE_CHECKING

from jdl.core.lazy import lazy_names

if TYPE_CHECKING:
    from jdl.optim.plateau import observe_evaluation as observe_evaluation
    from jdl.optim.plateau import reduce_on_plateau as reduce_on_plateau
    from jdl.optim.schedules import by_name as by_name
    from jdl.optim.schedules import schedule as schedule
    from jdl.optim.transforms import clip as clip
    from jdl.optim.transforms import decay_mask as decay_mask
    from jdl.optim.transforms import freeze as freeze
    from jdl.optim.transforms import is_weight as is_weight
    from jdl.optim.transforms import soft_threshold as soft_threshold
    from jdl.optim.transforms import sparsity as sparsity

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
