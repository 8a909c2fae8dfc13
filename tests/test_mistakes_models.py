"""Mistakes that tutorials make, 13 to 20: each wrong form fails a check that jdl's form passes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from scipy import signal

import jdl
from jdl.core import tree
from jdl.core.errors import InputError
from jdl.data import leakage, split, synthetic
from jdl.data.prepare.scale import standardise
from jdl.models.layers import primitives
from tests.support.mistakes_page import page_states, rejects
from tests.support.runs import quiet

KEY = jax.random.key(0)
DRAW = np.random.default_rng(0)


def pair():
    """The players of jdl for a generator G(z) = g and a discriminator with logits d x."""
    generator = jdl.from_functions(
        lambda key, z: {"g": jnp.full(1, -1.0)}, lambda p, z: p["g"][None] + 0 * z[:, :1]
    )
    judge = jdl.from_functions(lambda key, x: {"d": jnp.ones(1)}, lambda p, x: x * p["d"][None])
    return jdl.tasks.gan_tasks(generator, judge, latent=1)


def slopes(makes, judges):
    """Derivatives of the losses: the generator's by g, the discriminator's by d, twice.

    The second time what is real is 3, not 1.
    """
    params = {"generator": {"g": jnp.full(1, -1.0)}, "discriminator": {"d": jnp.ones(1)}}
    model_state = {"generator": {}, "discriminator": {}}

    @jax.jit
    def by(real):
        batch = {"x": jnp.full((4, 1), real)}
        of = lambda task: lambda p: task.loss(p, model_state, batch, KEY, train=True)[0].value
        by_g = jax.grad(of(makes))(params)["generator"]["g"][0]
        return by_g, jax.grad(of(judges))(params)["discriminator"]["d"][0]

    return *by(1.0), by(3.0)[1]


def changed(task, value):
    """A task whose loss is another function of the params and the batch."""

    def loss(params, model_state, batch, key, *, train):
        g, d = params["generator"]["g"][0], params["discriminator"]["d"][0]
        mean = jdl.Mean(value(g, d, batch["x"]).mean(), jnp.ones(()))
        return mean, (model_state, {"loss": mean})

    return task._replace(loss=loss)


def test_13_players_of_a_gan():
    makes, judges = pair()
    s = jax.nn.softplus

    def check(tasks):
        by_g, by_d, elsewhere = slopes(*tasks)
        # Descent moves g towards what the judge likes, d towards telling 1 from -1, and what is
        # real decides it.
        assert by_g < 0 and by_d < 0
        assert by_d != elsewhere

    rejects(
        check,
        (changed(makes, lambda g, d, x: s(d * g)), judges),
        (makes, changed(judges, lambda g, d, x: s(d * x) + s(-d * g))),
        (makes, changed(judges, lambda g, d, x: s(d * g))),
    )
    check((makes, judges))

    def alone(step):
        """The discriminator's step leaves the generator's bits as they are."""
        before, after = step()
        np.testing.assert_array_equal(before["g"], after["g"])

    def both():
        params = {"g": jnp.full(1, -1.0), "d": jnp.ones(1)}
        grads = jax.grad(lambda p: (s(-p["d"]) + s(p["d"] * p["g"]))[0])(params)
        return params, jax.tree.map(lambda w, g: w - 0.1 * g, params, grads)

    def by_jdl():
        # The generator moves on every second step only: the first is the discriminator's alone.
        players = {
            "discriminator": jdl.Player(judges, optax.sgd(0.1)),
            "generator": jdl.Player(makes, optax.sgd(0.1), every=2),
        }
        game = jdl.jit(jdl.game(**players))
        batch = {"x": jnp.ones((4, 1))}
        start = game.init(KEY, batch)
        moves = [start]
        for _ in range(2):
            moves.append(game.step(moves[-1], batch)[0])
        g, d = (
            [t.params[p][n] for t in moves] for p, n in (("generator", "g"), ("discriminator", "d"))
        )
        alone_in = next(i for i in range(2) if d[i] != d[i + 1] and (g[i] == g[i + 1]).all())
        return moves[alone_in].params["generator"], moves[alone_in + 1].params["generator"]

    rejects(alone, both)
    alone(by_jdl)
    # ReLU at the output: of eight Gaussians on a ring only those without negative coordinates.
    reached = (synthetic.ring_centers(8) > -1e-9).all(1).sum()
    page_states(13, f"{reached} of 8")


def test_14_what_recurrent_networks_remember():
    width, length = 16, 100
    q = np.linalg.qr(DRAW.normal(size=(width, width)))[0].astype(np.float32)

    def plain(x):
        step = lambda h, x: (jnp.tanh(0.95 * h @ q + x), None)
        return jax.lax.scan(step, jnp.zeros(width), x)[0].sum()

    def gated(x):
        """The cell of an LSTM with its forget gate open: c = sigmoid(4) c + input."""
        step = lambda c, x: (jax.nn.sigmoid(4.0) * c + jnp.tanh(x), None)
        return jax.lax.scan(step, jnp.zeros(width), x)[0].sum()

    x = jnp.asarray(0.5 * DRAW.normal(size=(length, width)), jnp.float32)

    def kept(network):
        """The gradient by the first input over that by the last."""
        grad = jax.jit(jax.grad(network))(x)
        return float(jnp.linalg.norm(grad[0]) / jnp.linalg.norm(grad[-1]))

    def check(network):
        assert kept(network) > 0.05

    rejects(check, plain)
    check(gated)

    # A recursive network reads a tree, a recurrent one a sequence.
    join = lambda a, b: np.tanh(a @ q + b @ q.T)
    a, b, c = (DRAW.normal(size=width) for _ in range(3))

    def sees_the_tree(network):
        assert np.abs(network(((a, b), c)) - network((a, (b, c)))).max() > 0.1

    def recurrent(t):
        words = [*t[0], t[1]] if isinstance(t[0], tuple) else [t[0], *t[1]]
        h = np.zeros(width)
        for word in words:
            h = join(h, word)
        return h

    def recursive(t):
        return join(recursive(t[0]), recursive(t[1])) if isinstance(t, tuple) else t

    rejects(sees_the_tree, recurrent)
    sees_the_tree(recursive)
    page_states(14, f"{kept(plain):.0e}".replace("e-0", "e-"), f"{kept(gated):.2f}")


def test_15_the_sense_of_a_gate():
    cell = nn.GRUCell(4)
    x, h = DRAW.normal(size=(2, 3, 4)).astype(np.float32)
    params = cell.init(KEY, h, x)["params"]
    theirs, _ = cell.apply({"params": params}, h, x)

    def gru(keeps_old):
        p = jax.tree.map(np.asarray, params)
        dense = lambda name, v: v @ p[name]["kernel"] + p[name].get("bias", 0)
        gate = lambda g: 1 / (1 + np.exp(-dense(f"i{g}", x) - dense(f"h{g}", h)))
        new = np.tanh(dense("in", x) + gate("r") * dense("hn", h))
        z = gate("z")
        return z * h + (1 - z) * new if keeps_old else (1 - z) * h + z * new

    check = lambda keeps_old: np.testing.assert_allclose(gru(keeps_old), theirs, atol=1e-5)
    rejects(check, False)
    check(True)
    page_states(15, f"{0.9**10:.2f}", f"{0.1**10:.0e}")


def test_16_convolution():
    x, k = DRAW.normal(size=(1, 7, 7, 1)), DRAW.normal(size=(3, 3))
    layer = primitives.conv(1, 3, padding="VALID", use_bias=False)
    kernel = jnp.asarray(k[..., None, None], jnp.float32)
    found = layer.apply({"params": {"kernel": kernel}}, jnp.asarray(x, jnp.float32))[0, :, :, 0]

    def check(form):
        result = np.asarray(form(x[0, :, :, 0], k))
        assert result.shape == found.shape and np.abs(result - found).max() < 1e-4

    rejects(
        check,
        lambda x, k: (x[:3, :3] * k).sum(),
        lambda x, k: signal.convolve2d(x, k, "valid"),
    )
    check(lambda x, k: signal.correlate2d(x, k, "valid"))
    edge = np.array([[-1.0, 0.0, 1.0]])
    ramp = np.arange(5.0)[None]
    slid, flipped = (f(ramp, edge, "valid")[0, 0] for f in (signal.correlate2d, signal.convolve2d))
    page_states(16, f"{slid:+.0f}", f"{flipped:+.0f}".replace("-", "−"))


def test_17_what_training_must_not_know():
    draw = np.random.default_rng(1)
    # The test part is another year, whose values lie higher.
    train, test = draw.normal(size=(80, 1)), draw.normal(3, 1, size=(20, 1))

    def check(statistics):
        report = leakage.scaler(standardise, statistics, {"train": train, "test": test})
        assert report.counts["fitted on the training part"]

    everything = standardise.fit(np.concatenate([train, test]))
    rejects(check, everything)
    check(standardise.fit(train))

    # Copies: labels are coins, so nobody can be right more than half the time.
    x, y = draw.normal(size=(1_000, 2)), draw.integers(0, 2, 1_000)
    rows = np.concatenate([np.arange(1_000), draw.choice(1_000, 600)])

    def nearest(train, test):
        distance = ((x[test][:, None] - x[train][None]) ** 2).sum(-1)
        return (y[train][distance.argmin(1)] == y[test]).mean()

    def honest(parts):
        try:
            leakage.refuse(
                leakage.duplicates({n: {"x": x[p]} for n, p in zip("ab", parts, strict=True)})
            )
        except InputError as leak:
            raise AssertionError from leak

    copied = [rows[part] for part in split.random(1_600, (0.7, 0.3))]
    clean = split.random(1_000, (0.7, 0.3))
    rejects(honest, copied)
    honest(clean)
    assert abs(nearest(*clean) - 0.5) < 0.08

    # The best of 100 coins by the test part, and what it is worth on new examples.
    guesses = draw.integers(0, 2, (100, 200))
    chosen = (guesses == draw.integers(0, 2, 200)).mean(1).max()
    page_states(17, f"{100 * nearest(*copied):.0f} %", f"{100 * nearest(*clean):.0f} %",
         f"{100 * chosen:.0f} %", f"{everything['mean'][0] - train.mean():.2f}")  # fmt: skip


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = primitives.BatchNorm(use_running_average=not train, name="norm")(x)
        return primitives.Dense(2, name="output")(x)


def test_18_train_mode_statistics_at_test_time():
    model = jdl.from_linen(Normed())
    x = jnp.asarray(DRAW.normal(2, 3, size=(8, 4)), jnp.float32)
    params, model_state = model.init(KEY, x)
    apply = jax.jit(model.apply, static_argnames="train")
    for _ in range(3):
        _, model_state = apply(params, model_state, x, train=True)

    def check(train):
        """An example's answer does not depend on who stands beside it."""
        outputs = lambda x: apply(params, model_state, x, train=train)[0]
        np.testing.assert_allclose(outputs(x[:1])[0], outputs(x)[0], atol=1e-5)

    rejects(check, True)
    check(False)
    # Alone in its batch every example is its own mean: all get the same answer.
    alone = jnp.stack([apply(params, model_state, x[i : i + 1], train=True)[0] for i in range(8)])
    spread = float(jnp.ptp(alone))
    assert float(jnp.ptp(apply(params, model_state, x)[0])) > 1
    page_states(18, f"differ by {spread:.0f}")


def test_19_weights_drawn_anew_and_loops_nested():
    data = synthetic.blobs((200, 200, 200), width=0.5)
    model = jdl.from_linen(jdl.models.MLP((), 3))
    learner = jdl.learner(jdl.classification(model), optax.sgd(0.5))
    result = jdl.fit(learner, data, batch_size=60, epochs=4, options=quiet())
    accuracy = lambda result: jdl.evaluate(result, data)["accuracy"]

    @jax.jit
    @jax.vmap
    def drawn_anew(key):
        params, model_state = model.init(key, data["x"])
        return (model.apply(params, model_state, data["x"])[0].argmax(-1) == data["y"]).mean()

    others = drawn_anew(jax.random.split(KEY, 20))

    def check(value):
        assert value > 0.95

    rejects(check, float(np.mean(others)))
    check(accuracy(result))

    def counted(steps):
        assert steps == 4 * 10

    # An epoch is as many steps as it has batches: neither one step nor a hundred.
    nested = sum(1 for epoch in range(4) for batch in range(10) for again in range(10))
    rejects(counted, nested, 4)
    counted(int(result.state.step))
    page_states(
        19,
        f"{100 * accuracy(result):.0f} %",
        f"{100 * np.mean(others):.0f} %",
        f"{nested} steps",
        f"{-(-60_000 // 128)}",
    )


def test_20_labels_and_channels():
    z, y = jnp.asarray(DRAW.normal(size=(3, 3)), jnp.float32), jnp.array([2, 0, 1])
    true = -np.asarray(jax.nn.log_softmax(z))[np.arange(3), y]

    def check(loss):
        """A loss is right, or it refuses."""
        for labels in (y, jax.nn.one_hot(y, 3)):
            try:
                np.testing.assert_allclose(loss(z, labels), true, rtol=1e-5)
            except InputError as refused:
                assert "soft_cross_entropy" in str(refused) or "cross_entropy" in str(refused)

    def soft(z, y):
        with jax.numpy_rank_promotion("allow"):
            return -(y * jax.nn.log_softmax(z)).sum(-1)

    def integer(z, y):
        return -jnp.take_along_axis(jax.nn.log_softmax(z), y.astype(int).reshape(3, -1), 1)[:, 0]

    rejects(check, soft, integer)
    check(jdl.tasks.cross_entropy)
    check(jdl.tasks.soft_cross_entropy)

    # Without a channel axis Flax takes the batch for the height and the columns for channels.
    def refuses(model):
        with pytest.raises((InputError, AssertionError), match=r"x\[..., None\]"):
            jax.eval_shape(model.init, KEY, jnp.zeros((32, 28, 28)))

    bare = jdl.from_linen(nn.Conv(32, (3, 3)))
    shapes, _ = jax.eval_shape(bare.init, KEY, jnp.zeros((32, 28, 28)))
    with pytest.raises(pytest.fail.Exception):
        refuses(bare)
    refuses(jdl.from_linen(jdl.models.CNN()))
    page_states(20, f"{tree.count(shapes):,}", "320")
