"""Convolutions by products are XLA's, in every derivative, on the device that has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jdl.core.lowering import lowering_for
from jdl.models.layers import convolution as module
from jdl.models.layers import primitives
from jdl.models.layers.convolution import convolution

LAYOUTS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}


def problem(seed, shape, kernel, dtype=np.float32):
    draw = np.random.default_rng(seed)
    return jnp.asarray(draw.normal(size=shape), dtype), jnp.asarray(draw.normal(size=kernel), dtype)


def program(function, *given):
    return jax.jit(function).lower(*given).compile().as_text()


@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    spatial=st.lists(st.tuples(st.integers(5, 8), st.integers(1, 3)), min_size=1, max_size=2),
    channels=st.sampled_from([1, 3, 20]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.sampled_from(["SAME", "VALID", (2, 1)]),
)
def test_values_and_all_derivatives_are_xlas(spatial, channels, stride, dilation, padding):
    with jax.enable_x64(True):
        rank = len(spatial)
        x, kernel = problem(
            0,
            (2, *(s for s, _ in spatial), channels),
            (*(k for _, k in spatial), channels, 2),
            np.float64,
        )
        pads = padding if isinstance(padding, str) else (padding,) * rank
        moves = {"rhs_dilation": (dilation,) * rank}

        def ours(x, kernel):
            return convolution(x, kernel, (stride,) * rank, pads, **moves)

        def theirs(x, kernel):
            return lax.conv_general_dilated(
                x, kernel, (stride,) * rank, pads, dimension_numbers=LAYOUTS[rank], **moves
            )

        def everything(conv):
            def loss(x, kernel):
                return jnp.sin(conv(x, kernel)).sum()

            slope = jax.grad(loss, (0, 1))
            return jax.jit(
                lambda: {
                    "value": conv(x, kernel),
                    "gradient": slope(x, kernel),
                    "forward over reverse": jax.jvp(slope, (x, kernel), (kernel.sum() * x, kernel)),
                    "reverse over reverse": jax.grad(
                        lambda k: sum((g**2).sum() for g in slope(x, k))
                    )(kernel),
                    "members": jax.vmap(slope)(jnp.stack([x, 2 * x]), jnp.stack([kernel, -kernel])),
                }
            )()

        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9),
            everything(ours),
            everything(theirs),
        )


def test_in_single_precision_too():
    x, kernel = problem(1, (4, 12, 12, 8), (3, 3, 8, 16))

    def slope(conv):
        return jax.jit(jax.grad(lambda x, k: jnp.sin(conv(x, k)).mean(), (0, 1)))(x, kernel)

    ours = slope(lambda x, k: convolution(x, k, (1, 1), "SAME"))
    theirs = slope(
        lambda x, k: lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=LAYOUTS[2])
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, theirs)


def test_no_convolution_is_left_on_cpu():
    x, kernel = problem(2, (2, 6, 6, 3), (3, 3, 3, 4))

    def slope(conv):
        return program(jax.grad(lambda k: jnp.sin(conv(x, k, (1, 1), "SAME")).sum()), kernel)

    assert " convolution(" not in slope(convolution)
    plain = slope(lambda *given: lax.conv_general_dilated(*given, dimension_numbers=LAYOUTS[2]))
    assert " convolution(" in plain


def test_other_platforms_have_xlas_form():
    x, kernel = problem(3, (2, 6, 6, 3), (3, 3, 3, 4))
    step = jax.jit(jax.grad(lambda k: convolution(x, k, (1, 1), "SAME").sum()))
    for platform, expected in (("cpu", False), ("tpu", True), ("cuda", True)):
        text = step.trace(kernel).lower(lowering_platforms=(platform,)).as_text()
        assert ("stablehlo.convolution" in text) is expected


@pytest.mark.parametrize(
    "options",
    [
        {"feature_group_count": 2},
        {"lhs_dilation": (2, 2)},
        {"dimension_numbers": ("NHWC", "OHWI", "NHWC")},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_products_do_not_serve_is_left_to_xla(options):
    kernel = (3, 3, 2, 4) if "feature_group_count" in options else (3, 3, 4, 4)
    x, kernel = problem(4, (2, 6, 6, 4), kernel)
    numbers = {"dimension_numbers": LAYOUTS[2]} | options
    theirs = lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), **numbers)
    ours = convolution(x, kernel, (1, 1), ((1, 1), (1, 1)), **options)
    np.testing.assert_array_equal(ours, theirs)


def test_windows_too_large_to_lay_out_are_left_to_xla(monkeypatch):
    x, kernel = problem(5, (2, 6, 6, 3), (3, 3, 3, 4))
    monkeypatch.setattr(module, "MAX_WINDOW_BYTES", 2 * 36 * 9 * 4 - 1)
    assert " convolution(" in program(lambda k: convolution(x, k, (1, 1), "SAME"), kernel)
    monkeypatch.setattr(module, "MAX_WINDOW_BYTES", 2 * 36 * 9 * 4)
    assert " convolution(" not in program(lambda k: convolution(x, k, (1, 1), "SAME"), kernel)


@pytest.mark.parametrize(
    ("kernel", "stride", "by_xla"),
    [((3, 3, 8, 4), 1, True), ((3, 3, 3, 4), 1, False), ((3, 3, 8, 4), 2, False),
     ((1, 1, 8, 4), 1, False)],
    ids=["wide", "narrow", "strided", "1x1"],
)  # fmt: skip
def test_a_program_of_its_own_has_xlas_form_where_that_is_faster(kernel, stride, by_xla):
    x, kernel = problem(8, (2, 6, 6, kernel[2]), kernel)

    def conv(x, kernel):
        return convolution(x, kernel, (stride, stride), "SAME")

    looped = program(conv, x, kernel)

    def by_itself(x, kernel):
        with lowering_for(single_step=True):
            return conv(x, kernel)

    assert " convolution(" not in looped
    assert (" convolution(" in program(by_itself, x, kernel)) is by_xla
    np.testing.assert_allclose(jax.jit(by_itself)(x, kernel), jax.jit(conv)(x, kernel), atol=1e-5)


def test_windows_are_not_kept_for_the_backward_pass():
    x, kernel = problem(6, (2, 6, 6, 3), (3, 3, 3, 4))
    _, pullback = jax.vjp(lambda x, k: convolution(x, k, (1, 1), "SAME"), x, kernel)
    assert max(np.size(leaf) for leaf in jax.tree.leaves(pullback)) == x.size


def test_layers_use_it():
    x = jnp.ones((2, 6, 6, 3))
    layer = primitives.conv(4)
    params = layer.init(jax.random.key(0), x)
    assert " convolution(" not in program(layer.apply, params, x)


@pytest.mark.parametrize(("window", "stride"), [(4, 2), (2, 2), (3, 1)])
def test_the_transpose_is_xlas(window, stride):
    with jax.enable_x64(True):
        x, kernel = problem(7, (2, 5, 4, 3), (window, window, 2, 3), np.float64)

        def ours(x, kernel):
            return module.transposed_convolution(x, kernel, stride, (window - stride) // 2)

        def theirs(x, kernel):
            return lax.conv_transpose(
                x,
                kernel,
                (stride, stride),
                "SAME",
                dimension_numbers=LAYOUTS[2],
                transpose_kernel=True,
            )

        def everything(layer):
            slope = jax.grad(lambda x, k: jnp.sin(layer(x, k)).sum(), (0, 1))
            again = jax.grad(lambda k: sum((g**2).sum() for g in slope(x, k)))
            return jax.jit(lambda: (layer(x, kernel), slope(x, kernel), again(kernel)))()

        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9),
            everything(ours),
            everything(theirs),
        )
        slope = jax.grad(lambda k: jnp.sin(ours(x, k)).sum())
        assert " convolution(" not in program(slope, kernel)
