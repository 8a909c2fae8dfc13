"""The communication of compiled programs: from real ones, and from texts of other compilers."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jdl
from jdl.parallel.hlo import Collective, bytes_of, collectives

MESH = jdl.mesh(data=8)


def text(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().as_text()


def mapped(function, specs, out):
    return jax.shard_map(function, mesh=MESH, in_specs=specs, out_specs=out, check_vma=False)


def rows(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(MESH, P("data")))


def next_one(x):
    return lax.ppermute(x, "data", [(i, (i + 1) % 8) for i in range(8)])


EACH = {
    "all-reduce": (lambda x: lax.psum(x, "data"), P(), 4 * 6),
    "all-gather": (lambda x: lax.all_gather(x, "data", tiled=True), P(), 64 * 6 * 4),
    "reduce-scatter": (
        lambda x: lax.psum_scatter(x, "data", tiled=True), P("data"), 8 * 6 * 4
    ),
    "all-to-all": (lambda x: lax.all_to_all(x, "data", 0, 0), P("data"), 8 * 6 * 4),
    "collective-permute": (next_one, P("data"), 8 * 6 * 4),
}  # fmt: skip


@pytest.mark.parametrize("kind", EACH)
def test_each_kind_and_its_bytes(kind):
    function, out, size = EACH[kind]
    program = text(
        mapped(lambda x: function(x[:1, :6] if kind == "all-reduce" else x), P("data"), out),
        rows(64, 6),
    )
    assert collectives(program) == (Collective(kind, 1, size),)


def test_one_device_communicates_nothing():
    assert collectives(text(jnp.sin, jnp.ones(3))) == ()


def test_a_loop_counts_each_turn():
    def turns(x):
        return lax.scan(lambda c, _: (jnp.tanh(next_one(c)), None), x, None, length=7)[0]

    program = text(mapped(turns, P("data"), P("data")), rows(64, 6))
    assert collectives(program) == (Collective("collective-permute", 7, 7 * 8 * 6 * 4),)


def test_a_loop_of_unknown_length_counts_once_and_says_so():
    def turns(x, n):
        return lax.while_loop(lambda c: c[1] < n[0], lambda c: (next_one(c[0]), c[1] + 1), (x, 0))[
            0
        ]

    n = jax.ShapeDtypeStruct((1,), jnp.int32)
    program = text(mapped(turns, (P("data"), P()), P("data")), rows(64, 6), n)
    assert collectives(program) == (Collective("collective-permute", 1, 8 * 6 * 4, 1),)


# As the TPU compiler writes: a gather laid out over fusions, a sum of which a part is kept, a loop
# whose length stands in its condition alone, and one that is started and awaited.
TPU = """\
HloModule jit_step, is_scheduled=true

%fused_computation.1 (param_0.1: bf16[16,256]) -> (bf16[256,256], s32[2]) {
  %param_0.1 = bf16[16,256]{1,0:T(8,128)(2,1)} parameter(0)
  %all-gather.1 = bf16[256,256]{1,0:T(8,128)} all-gather(%param_0.1), channel_id=8, \
replica_groups=mesh['axis_0'=16] {'axis_0'}, dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %custom-call.1 = (bf16[256,256]{1,0}, s32[2]{0}) custom-call(%all-gather.1)
}

%async_collective_fusion.2 (param_0.2: bf16[16,256]) -> bf16[256,256] {
  %param_0.2 = bf16[16,256]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.2 = bf16[256,256]{1,0:T(8,128)} all-gather(%param_0.2), channel_id=8, \
replica_groups=mesh['axis_0'=16] {'axis_0'}, dimensions={0}, frontend_attributes={chain_id="0"}
}

%all-reduce-scatter.3 (input: f32[4096,256]) -> f32[256,256] {
  %input = f32[4096,256]{1,0:T(8,128)} parameter(0)
  %all-reduce.3 = f32[4096,256]{1,0:T(8,128)} all-reduce(%input), channel_id=9, to_apply=%add
  ROOT %dynamic-slice.3 = f32[256,256]{1,0:T(8,128)} dynamic-slice(%all-reduce.3, %i, %i)
}

%body (p: (s32[], f32[16,256])) -> (s32[], f32[16,256]) {
  %p = (s32[]{:T(128)}, f32[16,256]{1,0:T(8,128)}) parameter(0)
  %x = bf16[16,256]{1,0} get-tuple-element(%p), index=1
  %f = (bf16[256,256]{1,0}, s32[2]{0}) fusion(%x), kind=kCustom, calls=%fused_computation.1
  %g = bf16[256,256]{1,0} fusion(%x), kind=kCustom, calls=%async_collective_fusion.2
  ROOT %t = (s32[]{:T(128)}, f32[16,256]{1,0:T(8,128)}) tuple(%i, %x)
}

%condition (q: (s32[], f32[16,256])) -> pred[] {
  %constant.9 = s32[]{:T(128)} constant(32)
  %q = (s32[]{:T(128)}, f32[16,256]{1,0:T(8,128)}) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%q), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i.2, %constant.9), direction=LT
}

ENTRY %main (a: f32[4096,256]) -> f32[256,256] {
  %a = f32[4096,256]{1,0:T(8,128)} parameter(0)
  %w = (s32[]{:T(128)}, f32[16,256]{1,0:T(8,128)}) while(%a), condition=%condition, body=%body
  %s = (f32[4096,256]{1,0}, f32[4096,256]{1,0}, u32[], u32[]) \
collective-permute-start(%a), channel_id=4
  %d = f32[4096,256]{1,0} collective-permute-done(%s)
  %b = (f32[4096,256]{1,0}, f32[8192,256]{1,0}) all-gather-start(%a), channel_id=5, dimensions={0}
  %c = f32[8192,256]{1,0} all-gather-done(%b)
  ROOT %r = f32[256,256]{1,0:T(8,128)} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.3
}
"""


def test_what_the_tpu_compiler_writes():
    whole = 4096 * 256 * 4
    assert collectives(TPU) == (
        Collective("all-gather", 33, 32 * 256 * 256 * 2 + 2 * whole),
        Collective("reduce-scatter", 1, whole),
        Collective("collective-permute", 1, whole),
    )


def test_bytes_of_small_numbers():
    assert bytes_of("s4[3]") == 2 and bytes_of("f8e4m3fn[5,2]") == 10 and bytes_of("c64[2]") == 16
    assert bytes_of("token[]") == 0
