"""What lies on a device is a copy, made once, and known by its shapes before it is there."""

import jax
import numpy as np
import pytest

import jdl
from jdl.run.execution import placement as module
from jdl.run.execution.placement import placed_shapes, placement
from jdl.run.telemetry.recompilation import signature
from tests.support.runs import line, net

DATA = {
    "x": np.arange(24.0, dtype=np.float32).reshape(4, 6)[:, ::2],
    "y": np.arange(4, dtype=np.int32),
    "long": np.arange(4),
    "flag": np.array([True, False, True, True]),
    "none": np.zeros((4, 0), np.float32),
    "one": np.int32(3),
}


def make_state(devices):
    """That of a learner on one device, or on a mesh of several."""
    one = net()
    learner = one if devices == 1 else jdl.shard(one, jdl.mesh(data=devices))
    return jax.jit(learner.init)(jax.random.key(0), line(8))


@pytest.mark.parametrize("devices", [1, 8])
def test_shapes_are_those_of_what_is_placed(devices):
    state = make_state(devices)
    placed = placement(state)(DATA)
    assert signature({"data": placed_shapes(state, DATA)}) == signature({"data": placed})
    for name, value in DATA.items():
        np.testing.assert_array_equal(placed[name], value)


def test_an_owner_may_change_what_was_placed():
    mine = np.ones((4, 5000), np.float32)
    placed = placement(make_state(1))({"x": mine})["x"]
    mine[:] = 2
    assert (np.asarray(placed) == 1).all()


def test_jax_uses_the_copy_in_place():
    """At another address it would copy it again; the large arrays of numpy are 16 bytes off."""
    for size in (5, 10**6 + 1):
        copy = module._aligned_copy(np.ones(size, np.float32))
        assert jax.device_put(copy).unsafe_buffer_pointer() == copy.ctypes.data
        assert not np.shares_memory(copy, module._aligned_copy(copy))
