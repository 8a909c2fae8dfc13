"""Tasks: what a model is trained for. Functions from models to tasks, and from tasks to tasks."""

from typing import TYPE_CHECKING

from jdl.core.lazy import lazy_names

if TYPE_CHECKING:
    from jdl.tasks.autoencoding import denoising as denoising
    from jdl.tasks.autoencoding import gaussian_noise as gaussian_noise
    from jdl.tasks.autoencoding import masking_noise as masking_noise
    from jdl.tasks.autoencoding import reconstruction as reconstruction
    from jdl.tasks.autoencoding import variational as variational
    from jdl.tasks.gan import gan_tasks as gan_tasks
    from jdl.tasks.language import language_model as language_model
    from jdl.tasks.losses import binary_cross_entropy as binary_cross_entropy
    from jdl.tasks.losses import class_weighted as class_weighted
    from jdl.tasks.losses import cross_entropy as cross_entropy
    from jdl.tasks.losses import focal as focal
    from jdl.tasks.losses import (
        gaussian_negative_log_likelihood as gaussian_negative_log_likelihood,
    )
    from jdl.tasks.losses import half_squared_error as half_squared_error
    from jdl.tasks.losses import pinball as pinball
    from jdl.tasks.losses import soft_cross_entropy as soft_cross_entropy
    from jdl.tasks.losses import squared_error as squared_error
    from jdl.tasks.pretext import masked_reconstruction as masked_reconstruction
    from jdl.tasks.pretext import rotation_prediction as rotation_prediction
    from jdl.tasks.sequence import sequence_classification as sequence_classification
    from jdl.tasks.sequence import sequence_labelling as sequence_labelling
    from jdl.tasks.sequence import sequence_regression as sequence_regression
    from jdl.tasks.simclr import contrastive as contrastive
    from jdl.tasks.simclr import nt_xent as nt_xent
    from jdl.tasks.supervised import binary_classification as binary_classification
    from jdl.tasks.supervised import classification as classification
    from jdl.tasks.supervised import regression as regression
    from jdl.tasks.supervised import supervised_task as supervised_task
    from jdl.tasks.supervised import uncertain_regression as uncertain_regression
    from jdl.tasks.transforms import augment as augment
    from jdl.tasks.transforms import l1 as l1
    from jdl.tasks.transforms import l2 as l2
    from jdl.tasks.transforms import label_smoothing as label_smoothing
    from jdl.tasks.transforms import mask_training as mask_training
    from jdl.tasks.transforms import mixup as mixup
    from jdl.tasks.trees import node_labelling as node_labelling
    from jdl.tasks.trees import tree_arrays as tree_arrays
    from jdl.tasks.trees import tree_classification as tree_classification

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
