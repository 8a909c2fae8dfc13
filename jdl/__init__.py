"""jdl: deep learning on JAX, where a training run is a few pure functions.

Each name is loaded on first use, so `import jdl` neither imports jax nor sets a flag.
"""

from typing import TYPE_CHECKING

from jdl.core.lazy import lazy_names

if TYPE_CHECKING:
    from jdl import data as data
    from jdl import metrics as metrics
    from jdl import models as models
    from jdl import optim as optim
    from jdl import plots as plots
    from jdl import tasks as tasks
    from jdl.cli.main import main as main
    from jdl.core.errors import Diverged as Diverged
    from jdl.core.errors import InputError as InputError
    from jdl.core.errors import check_fields as check_fields
    from jdl.core.text import seed_table as seed_table
    from jdl.core.types import Count as Count
    from jdl.core.types import Learner as Learner
    from jdl.core.types import Mean as Mean
    from jdl.core.types import Metric as Metric
    from jdl.core.types import Model as Model
    from jdl.core.types import Samples as Samples
    from jdl.core.types import Task as Task
    from jdl.core.types import TrainState as TrainState
    from jdl.core.version import __version__ as __version__
    from jdl.data.feed import Feed as Feed
    from jdl.data.records import Data as Data
    from jdl.learn.ema import ema as ema
    from jdl.learn.ensemble import ensemble as ensemble
    from jdl.learn.game import Player as Player
    from jdl.learn.game import game as game
    from jdl.learn.game import independent as independent
    from jdl.learn.gradient import accumulate as accumulate
    from jdl.learn.gradient import clip_gradient as clip_gradient
    from jdl.learn.gradient import mean_gradient as mean_gradient
    from jdl.learn.gradient import sharpness_aware as sharpness_aware
    from jdl.learn.guard import guard as guard
    from jdl.learn.keep_best import keep_best as keep_best
    from jdl.learn.learner import learner as learner
    from jdl.learn.sweep import group_by as group_by
    from jdl.learn.sweep import sweep as sweep
    from jdl.learn.sweep import sweep_table as sweep_table
    from jdl.learn.transforms import jit as jit
    from jdl.models.adapters.linen import from_functions as from_functions
    from jdl.models.adapters.linen import from_linen as from_linen
    from jdl.models.adapters.nnx import from_nnx as from_nnx
    from jdl.models.adapters.precision import precision as precision
    from jdl.parallel import rules as rules
    from jdl.parallel.mesh import mesh as mesh
    from jdl.parallel.pmap import pmap as pmap
    from jdl.parallel.shard import shard as shard
    from jdl.parallel.shard_map import shard_map as shard_map
    from jdl.parallel.shard_members import shard_members as shard_members
    from jdl.run.evaluate import Result as Result
    from jdl.run.evaluate import evaluate as evaluate
    from jdl.run.evaluate import predict as predict
    from jdl.run.experiment import Experiment as Experiment
    from jdl.run.experiment import load as load
    from jdl.run.fit import fit as fit
    from jdl.run.fit import steps as steps
    from jdl.run.setup import Options as Options
    from jdl.run.storage.state import load_state as load_state
    from jdl.run.storage.state import save_state as save_state
    from jdl.tasks.supervised import binary_classification as binary_classification
    from jdl.tasks.supervised import classification as classification
    from jdl.tasks.supervised import regression as regression
    from jdl.tasks.transforms import augment as augment
    from jdl.tasks.transforms import l1 as l1
    from jdl.tasks.transforms import l2 as l2
    from jdl.tasks.transforms import label_smoothing as label_smoothing
    from jdl.tasks.transforms import mixup as mixup
    from jdl.understand.evaluators import ImageEvaluator as ImageEvaluator
    from jdl.understand.evaluators import linear_probe as linear_probe
    from jdl.understand.evaluators import train_image_evaluator as train_image_evaluator
    from jdl.understand.receptive_field import receptive_field as receptive_field
    from jdl.understand.summary import summary as summary

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
