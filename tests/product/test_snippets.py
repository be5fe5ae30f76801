"""metalr in other people's training loops; each snippet is whole, and may be quoted."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metalr
from metalr.predictor import init_predictor

STEPS = 30
SCHEDULE = optax.warmup_cosine_decay_schedule(0.0, 0.05, 3, STEPS)


@pytest.fixture(autouse=True)
def shipped_predictor(monkeypatch):
    """Stands in for the shipped weights, which a source checkout may not have yet."""
    monkeypatch.setattr("metalr.controller.load_predictor", init_predictor)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 4)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(x @ rng.normal(size=(4, 2)).astype(np.float32))


def check(losses, opt_state):
    assert losses[-1] < 0.8 * losses[0]
    assert optax.tree.get(opt_state, "lr_multiplier") == 1  # untrained
    assert optax.tree.get(opt_state, "lr_step") == STEPS


def test_plain_jax(data):
    x, y = data
    params, losses = {"w": jnp.zeros((4, 2))}, []

    tx = metalr.wrap(optax.adamw(SCHEDULE), total_steps=STEPS)
    opt_state = tx.init(params)

    def loss_fn(params):
        return jnp.mean((x @ params["w"] - y) ** 2)

    @jax.jit
    def train_step(params, opt_state):
        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params, value=loss)
        return optax.apply_updates(params, updates), opt_state, loss

    for _ in range(STEPS):
        params, opt_state, loss = train_step(params, opt_state)
        losses.append(float(loss))
    check(losses, opt_state)


def test_injected_so_that_the_rate_can_be_logged(data):
    x, y = data
    params, rates = {"w": jnp.zeros((4, 2))}, []

    tx = metalr.inject(optax.adamw, 0.05, total_steps=STEPS, weight_decay=0.01)
    opt_state = tx.init(params)

    @jax.jit
    def train_step(params, opt_state):
        loss_fn = lambda params: jnp.mean((x @ params["w"] - y) ** 2)  # noqa: E731
        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params, value=loss)
        return optax.apply_updates(params, updates), opt_state

    for _ in range(STEPS):
        params, opt_state = train_step(params, opt_state)
        rates.append(float(optax.tree.get(opt_state, "learning_rate")))
    assert max(rates) == pytest.approx(0.05) and rates[-1] < 0.01


def test_flax_nnx_optimizer(data):
    from flax import nnx

    x, y = data
    losses = []

    model = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
    tx = metalr.wrap(optax.adamw(SCHEDULE), total_steps=STEPS)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer):
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean((x @ m.kernel - y) ** 2))(
            model
        )
        optimizer.update(model, grads, value=loss)
        return loss

    for _ in range(STEPS):
        losses.append(float(train_step(model, optimizer)))
    check(losses, nnx.as_pure(optimizer.opt_state))


def test_flax_linen_train_state(data):
    from flax import linen
    from flax.training import train_state

    x, y = data
    losses = []

    class TrainState(train_state.TrainState):
        """`apply_gradients` of the parent cannot hand `value=` to the optimizer."""

        def apply_gradients(self, *, grads, value, **kwargs):
            updates, opt_state = self.tx.update(
                grads, self.opt_state, self.params, value=value
            )
            params = optax.apply_updates(self.params, updates)
            return self.replace(
                step=self.step + 1, params=params, opt_state=opt_state, **kwargs
            )

    model = linen.Dense(2, use_bias=False)
    state = TrainState.create(
        apply_fn=model.apply,
        params=model.init(jax.random.key(0), x)["params"],
        tx=metalr.wrap(optax.adamw(SCHEDULE), total_steps=STEPS),
    )

    @jax.jit
    def train_step(state):
        def loss_fn(params):
            return jnp.mean((state.apply_fn({"params": params}, x) - y) ** 2)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads, value=loss), loss

    for _ in range(STEPS):
        state, loss = train_step(state)
        losses.append(float(loss))
    check(losses, state.opt_state)


def test_equinox(data):
    eqx = pytest.importorskip("equinox")

    x, y = data
    losses = []

    model = eqx.nn.Linear(4, 2, use_bias=False, key=jax.random.key(0))
    tx = metalr.wrap(optax.adamw(SCHEDULE), total_steps=STEPS)
    opt_state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def train_step(model, opt_state):
        def loss_fn(model):
            return jnp.mean((jax.vmap(model)(x) - y) ** 2)

        loss, grads = eqx.filter_value_and_grad(loss_fn)(model)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = tx.update(grads, opt_state, params, value=loss)
        return eqx.apply_updates(model, updates), opt_state, loss

    for _ in range(STEPS):
        model, opt_state, loss = train_step(model, opt_state)
        losses.append(float(loss))
    check(losses, opt_state)
