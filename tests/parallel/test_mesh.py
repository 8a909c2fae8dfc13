"""Meshes come from one helper, with Auto axes, and say what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import AxisType, PartitionSpec

from jdl import tasks
from jdl.learn.learner import learner
from jdl.models import from_linen
from jdl.parallel import rules
from jdl.parallel.mesh import mesh
from jdl.parallel.shard import shard
from tests.support.learners import KEY, assert_close, message, train


@pytest.mark.parametrize("axes", [{"data": 8}, {"data": 4, "model": 2}, {"rows": 2}, {"data": 1}])
def test_axes_are_auto(axes):
    made = mesh(**axes)
    assert dict(made.shape) == axes and set(made.axis_types) == {AxisType.Auto}
    assert made.size == np.prod(list(axes.values()))


@pytest.mark.parametrize(
    "axes, got",
    [
        ({}, "mesh()\n  expected: axes of size 1 or more whose product divides the 8 devices\n"),
        (
            {"data": 3},
            "mesh(data=3)\n  expected: axes of size 1 or more whose product divides the 8 devices",
        ),
        ({"data": 16}, "mesh(data=16)"),
        ({"data": 0}, "mesh(data=0)"),
        ({"data": -8}, "mesh(data=-8)"),
        ({"data": 4, "model": 4}, "mesh(data=4, model=4)"),
    ],
)
def test_a_mesh_that_does_not_divide_the_devices(axes, got):
    text = message(lambda: mesh(**axes))
    assert text.startswith(got)
    assert "xla_force_host_platform_device_count" in text


class Layers(nn.Module):
    """The Linen layers that refuse Explicit axes."""

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(5, 8, name="embed")(tokens)
        x = nn.Conv(8, (3,), name="conv")(x)
        return nn.Dense(3, name="dense")(x.mean(1))


BATCH = {"x": jnp.asarray(np.arange(80).reshape(16, 5) % 5), "y": jnp.arange(16) % 3}


def test_linen_conv_and_embed_work_on_it():
    one = learner(tasks.classification(from_linen(Layers())), optax.sgd(0.1))
    wide = shard(one, mesh(data=4, model=2), rules.fsdp(smallest=1))
    assert_close(train(wide, BATCH, 3)[0].params, train(one, BATCH, 3)[0].params, rtol=1e-4)


def test_linen_refuses_the_default_axes_of_jax():
    """The control: why the helper is there."""
    default = jax.make_mesh((8,), ("data",))
    params = Layers().init(KEY, BATCH["x"])
    with jax.set_mesh(default):
        tokens = jax.device_put(BATCH["x"], jax.NamedSharding(default, PartitionSpec("data")))
        with pytest.raises(Exception, match=r"[Ss]harding"):
            jax.jit(Layers().apply)(params, tokens)
