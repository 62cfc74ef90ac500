"""The oracles of momentum against optax, against each other and against closed forms."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.networks import NETWORKS
from tests.oracles import optimizers as loops
from tests.oracles.analytic import (
    adamw_rest,
    adaptive_edge,
    growth_gain,
    loop_multipliers,
    quadratic_flow,
    saddle,
    sgd_edge,
)
from tests.oracles.complementarity import solve_complementarity
from tests.oracles.momentum import MomentumRule, Scheme, State, flow_path, optimizer_path
from tests.oracles.preconditioned import DenseLoss, OracleRule, central_path

STEPS = 200
LR, BETA1, BETA2, EPS, DECAY = 0.002, 0.9, 0.97, 1e-6, 0.1


def factor(k):
    return 0.25 + 0.75 * np.exp(-k / 40)


def scheduled(k):
    return LR * (0.25 + 0.75 * jnp.exp(-k / 40.0))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


# name: optax's transformation, NumPy loop, MomentumRule
RULES = {
    "heavy_ball": (
        optax.sgd(scheduled, BETA1),
        lambda *a: loops.sgd(*a, LR, BETA1, factor=factor),
        MomentumRule("sgd", LR, BETA1, factor=factor),
    ),
    "nesterov": (
        optax.sgd(scheduled, BETA1, nesterov=True),
        lambda *a: loops.sgd(*a, LR, BETA1, True, factor=factor),
        MomentumRule("sgd", LR, BETA1, nesterov=True, factor=factor),
    ),
    "sgd_decay": (
        optax.chain(
            optax.trace(BETA1),
            optax.add_decayed_weights(DECAY),
            optax.scale_by_learning_rate(scheduled),
        ),
        lambda *a: loops.sgd(*a, LR, BETA1, decay=DECAY, factor=factor),
        MomentumRule("sgd", LR, BETA1, decay=DECAY, factor=factor),
    ),
    "rmsprop": (
        optax.rmsprop(scheduled, BETA2, EPS, eps_in_sqrt=False, momentum=BETA1),
        lambda *a: loops.rmsprop(*a, LR, BETA2, BETA1, eps=EPS, factor=factor),
        MomentumRule("rmsprop", LR, BETA1, BETA2, EPS, factor=factor),
    ),
    "rmsprop_nesterov_corrected": (
        optax.rmsprop(
            scheduled,
            BETA2,
            EPS,
            eps_in_sqrt=False,
            momentum=BETA1,
            nesterov=True,
            bias_correction=True,
        ),
        lambda *a: loops.rmsprop(*a, LR, BETA2, BETA1, True, EPS, True, factor=factor),
        MomentumRule(
            "rmsprop", LR, BETA1, BETA2, EPS, nesterov=True, bias_correction=True, factor=factor
        ),
    ),
    "adam": (
        optax.adam(scheduled, BETA1, BETA2, EPS),
        lambda *a: loops.adam(*a, LR, BETA1, BETA2, EPS, factor=factor),
        MomentumRule("adam", LR, BETA1, BETA2, EPS, factor=factor),
    ),
    "adamw": (
        optax.adamw(scheduled, BETA1, BETA2, EPS, weight_decay=DECAY),
        lambda *a: loops.adam(*a, LR, BETA1, BETA2, EPS, decay=DECAY, factor=factor),
        MomentumRule("adam", LR, BETA1, BETA2, EPS, decay=DECAY, factor=factor),
    ),
    "nadam": (
        optax.nadam(scheduled, BETA1, BETA2, EPS),
        lambda *a: loops.adam(*a, LR, BETA1, BETA2, EPS, True, factor=factor),
        MomentumRule("adam", LR, BETA1, BETA2, EPS, nesterov=True, factor=factor),
    ),
    "scalar_adam": (
        None,
        lambda *a: loops.adam(*a, LR, BETA1, BETA2, EPS, scalar=True, factor=factor),
        MomentumRule("adam", LR, BETA1, BETA2, EPS, scalar=True, factor=factor),
    ),
}


def optax_path(transform, grad, w, steps):
    @jax.jit
    def step(w, state):
        updates, state = transform.update(grad(w), state, w)
        return optax.apply_updates(w, updates), state

    path, state = [w], transform.init(w)
    for _ in range(steps):
        w, state = step(w, state)
        path.append(w)
    return np.array(path)


@pytest.mark.parametrize("name", RULES)
def test_loops_are_optax_and_rules_are_loops(name):
    loss, w = NETWORKS["gelu_classifier"]()
    transform, loop, rule = RULES[name]
    path = loop(DenseLoss(loss).grad, w, STEPS)
    assert np.linalg.norm(path[-1] - w) > 0.1
    if transform is not None:
        theirs = optax_path(transform, jax.grad(loss), jnp.asarray(w), STEPS)
        np.testing.assert_allclose(path, theirs, rtol=1e-10, atol=1e-12)
    ours = [s.w for s in optimizer_path(loss, w, rule, STEPS)]
    np.testing.assert_allclose(ours, path, rtol=1e-10, atol=1e-12)


def edge_start(rule, x, y, c):
    """Return a state with m_y and ν settled, so late that bias corrections have faded."""
    t = 1e6
    q, kappa = rule.rate(t) / rule.edge(t), rule.kappa / (1 - rule.beta1)
    root_y = rule.preconditioner(np.full(2, c**2), t, 2)[1] if rule.family == "rmsprop" else 1.0
    # ν is given before it absorbs g_x = 0
    nu = np.zeros(1) if rule.family == "sgd" else np.array([(q * y) ** 2 / rule.beta2, c**2])
    return State(np.array([x, y]), np.array([0.0, -c * kappa / root_y]), nu, t)


SGD_RULES = {
    "heavy_ball_0.5": MomentumRule("sgd", 0.1, 0.5),
    "heavy_ball_0.9": MomentumRule("sgd", 0.1, 0.9),
    "nesterov_0.9": MomentumRule("sgd", 0.1, 0.9, nesterov=True),
    "heavy_ball_decay": MomentumRule("sgd", 0.1, 0.9, decay=0.002),
}


@pytest.mark.parametrize("name", SGD_RULES)
def test_sgd_at_the_edge_of_the_saddle(name):
    rule, c = SGD_RULES[name], 0.1
    expected = sgd_edge(c, rule, np.array([1.0]))
    start = edge_start(rule, 1e-3, 0.97 * expected.y[0], c)
    path = flow_path(saddle(c), start, rule, 80, Scheme(kind="split"))
    assert path.num_critical[0] == 0
    np.testing.assert_allclose(path.params[-1][1], expected.y[0], rtol=1e-6)
    np.testing.assert_allclose(path.sigma[-1][0, 0], expected.sigma[0], rtol=1e-6)
    np.testing.assert_allclose(path.predicted[-1] - path.loss[-1], expected.excess[0], rtol=1e-6)


def test_a_scheduled_rate_moves_the_edge():
    c, slope = 0.1, 1e-3  # 1/η = 10 (1 + slope·k), k steps made before
    rule = MomentumRule("sgd", 0.1, 0.9, factor=lambda k: 1 / (1 + slope * k))
    start = edge_start(rule, 1e-3, 0.97 * rule.edge(1.0) / rule.lr, c)._replace(t=0.0)
    path = flow_path(saddle(c), start, rule, 80, Scheme(kind="split"))
    expected = sgd_edge(c, rule, np.array([81.0]), slope=slope / rule.lr)
    np.testing.assert_allclose(path.params[-1][1], expected.y[0], rtol=1e-5)
    np.testing.assert_allclose(path.sigma[-1][0, 0], expected.sigma[0], rtol=1e-3)
    assert expected.sigma[0] < 0.99 * 2 * c


ADAPTIVE_RULES = {
    "adam_0.9_0.99": MomentumRule("adam", 0.02, 0.9, 0.99, eps=1e-14),
    "adam_0.9_0.999": MomentumRule("adam", 0.02, 0.9, 0.999, eps=1e-14),
    "adam_0.5_0.95": MomentumRule("adam", 0.02, 0.5, 0.95, eps=1e-14),
    "nadam": MomentumRule("adam", 0.02, 0.9, 0.99, eps=1e-14, nesterov=True),
    "rmsprop": MomentumRule("rmsprop", 0.02, 0.9, 0.99, eps=1e-14),
}


@pytest.mark.parametrize("name", ADAPTIVE_RULES)
@pytest.mark.parametrize("ratio", [1.0, 3.0])
def test_adaptive_rules_along_the_edge_of_the_saddle(name, ratio):
    rule = ADAPTIVE_RULES[name]
    q = rule.rate(1e6) / rule.edge(1e6)
    c, steps = ratio * q**2, 30
    scheme = Scheme(substeps=8, kind="split")
    path = flow_path(saddle(c), edge_start(rule, 0.0, 1.0, c), rule, steps, scheme)
    expected = adaptive_edge(c, rule, 1.0, np.arange(steps + 1.0))
    sigma = np.array([s[0, 0] for s in path.sigma])
    np.testing.assert_allclose(np.array(path.params)[:, 1], expected.y, rtol=1e-4)
    np.testing.assert_allclose(sigma, expected.sigma, rtol=1e-3)
    assert expected.y[-1] > 1.005


@pytest.mark.parametrize("mean_squared", [False, True])
def test_adamw_rests_on_the_saddle(mean_squared):
    rule = MomentumRule("adam", 0.02, 0.9, 0.9, eps=1e-14, decay=0.5)
    q = rule.rate(1e6) / rule.edge(1e6)
    c = 3 * q**2
    y, sigma = adamw_rest(c, rule, mean_squared)
    start = edge_start(rule, 0.0, y, c)  # a wrong y would go a factor e nearer to the right one
    if mean_squared:  # again before it absorbs g_y = -c
        start.nu[1] = ((c - sigma / 2) ** 2 - (1 - rule.beta2) * c**2) / rule.beta2
    path = flow_path(
        saddle(c),
        start,
        rule,
        100,
        Scheme(kind="split", mean_squared=mean_squared),
    )
    np.testing.assert_allclose(path.params[-1][1], y, rtol=1e-3)
    np.testing.assert_allclose(path.sigma[-1][0, 0], sigma, rtol=1e-3)


def test_the_optimizer_itself_rests_where_the_mean_is_squared():
    """AdamW without its filter ends in a period-two orbit: ν_y = (c - Σ/2)², not c²."""
    rule = MomentumRule("adam", 0.02, 0.0, 0.99, eps=1e-14, decay=0.5)
    q = rule.rate(1e6) / rule.edge(1e6)
    c = 3 * q**2
    s = edge_start(rule, q, adamw_rest(c, rule, False)[0], c)
    for _ in range(20_000):
        s = rule.step(s, np.array([s.w[1] * s.w[0], s.w[0] ** 2 / 2 - c]))
    y, sigma = adamw_rest(c, rule, True)
    np.testing.assert_allclose([s.w[1], s.w[0] ** 2], [y, sigma], rtol=1e-3)
    np.testing.assert_allclose(s.nu[1], (c - sigma / 2) ** 2, rtol=1e-3)
    assert abs(adamw_rest(c, rule, False)[0] / y - 1) > 0.1


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_a_quadratic_below_the_edge_is_a_matrix_exponential(nesterov, decay):
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    rule = MomentumRule("sgd", 0.3, 0.9, nesterov=nesterov, decay=decay)
    H = basis @ np.diag(np.array([0.01, 0.1, 0.5, 0.9]) * rule.edge(1.0) / rule.lr) @ basis.T
    start = State(rng.standard_normal(4), rng.standard_normal(4), np.zeros(1), 0.0)
    gaps = []
    for substeps in (16, 32):
        path = flow_path(lambda w: 0.5 * w @ H @ w, start, rule, 6, Scheme(substeps, "split"))
        w, m = quadratic_flow(H, rule, rule.absorb(start, H @ start.w), np.arange(7.0))
        gaps.append([np.abs(path.params - w).max(), np.abs(path.m - m).max()])
    assert np.all(gaps[1] / np.abs(start.w).max() < 1e-2)
    np.testing.assert_allclose(np.log2(np.divide(*gaps)), 2.0, atol=0.25)


@pytest.mark.parametrize("name", ["heavy_ball_0.5", "heavy_ball_0.9", "nesterov_0.9"])
def test_loops_grow_as_predicted(name):
    rule = SGD_RULES[name]
    theta = 0.01 * (1 - rule.beta1) ** 1.5
    c = (theta / rule.lr) ** 2 / 2
    E = loop_multipliers(rule, c)[0]
    assert abs(E) > 1
    G, tau = growth_gain(rule), rule.edge(1.0)
    rate = 2 * c * rule.lr**2 * rule.gain(1.0, 1.0) / tau  # of the effective sharpness
    np.testing.assert_allclose(abs(np.angle(E)), np.sqrt(2 * G * rate), rtol=1e-2)
    if not rule.nesterov:
        np.testing.assert_allclose(np.log(abs(E)), G**2 * rate, rtol=1e-2)
    x = np.sqrt(2 * c) * (1 + 1e-4)
    s = State(
        np.array([x, tau / rule.lr]),
        np.array([-rule.kappa * tau / rule.lr * x / (1 + rule.beta1), 0.0]),
        np.zeros(1),
        0.0,
    )
    period = 2 * np.pi / abs(np.angle(E))
    n = 4 * int(period)
    disturbed = np.empty(n)
    for i in range(n):
        disturbed[i] = abs(s.w[0]) / np.sqrt(2 * c) - 1
        s = rule.step(s, np.array([s.w[1] * s.w[0], s.w[0] ** 2 / 2 - c]))
    third, second = (np.abs(disturbed[k * n // 4 : (k + 1) * n // 4]).max() for k in (2, 1))
    np.testing.assert_allclose(np.log(third / second) / period, np.log(abs(E)), rtol=0.02)


NETWORK_RULES = {
    "heavy_ball": MomentumRule("sgd", 0.8, 0.5),
    "adam": MomentumRule("adam", 0.05, 0.9, 0.95),
    "rmsprop": MomentumRule("rmsprop", 0.004, 0.8, 0.95),
}


@pytest.mark.parametrize("name", NETWORK_RULES)
def test_orders_of_convergence_at_the_edge(name):
    loss, w = NETWORKS["tanh_regression"]()
    rule = NETWORK_RULES[name]
    states = optimizer_path(loss, w, rule, 5)
    path = flow_path(loss, states[-1], rule, 110, Scheme(2, "split"))
    k = next(k for k in range(20, 110) if all(path.num_critical[k - 20 : k + 1]))
    begin = State(path.params[k], path.m[k], path.nu[k], 6.0 + k)

    def end(substeps, kind):
        p = flow_path(loss, begin, rule, 2, Scheme(substeps, kind), absorbed=True)
        assert set(p.num_critical) == {path.num_critical[k]}
        return np.concatenate([p.params[-1], p.m[-1]])

    exact = end(48, "split")
    for kind, order in (("euler", 1), ("extrapolated", 2), ("split", 2)):
        gaps = [np.linalg.norm(end(n, kind) - exact) for n in (6, 12)]
        assert abs(np.log2(gaps[0] / gaps[1]) - order) < 0.35, (kind, gaps)


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("gradient_descent", MomentumRule("sgd", 0.8, 0.0)),
        ("rmsprop", MomentumRule("rmsprop", 0.01, 0.0, 0.95)),
    ],
)
def test_without_momentum_it_is_the_oracle_without_momentum(kind, rule):
    loss, w = NETWORKS["tanh_regression"]()
    steps = 60 if kind == "gradient_descent" else 25
    theirs = central_path(loss, w, OracleRule(kind, rule.lr, 0.95), steps, 4, 5)
    start = optimizer_path(loss, w, rule, 5)[-1]
    ours = flow_path(loss, start, rule, steps)
    assert max(theirs.num_critical) >= 1
    np.testing.assert_allclose(ours.predicted, theirs.predicted, rtol=1e-8)
    np.testing.assert_allclose(ours.params[-1], theirs.params[-1], rtol=1e-7)


@pytest.mark.parametrize("family", ["sgd", "rmsprop", "adam"])
def test_a_filter_of_short_memory_is_none(family):
    """From β₁ = 0.02 on the flow tends to the one without, linearly in β₁."""
    loss, w = NETWORKS["deep_linear"]()
    rule = MomentumRule(family, 0.05 if family == "sgd" else 0.005, 0.0, 0.9)
    none = flow_path(loss, rule.init(w), rule, 5)
    gaps = []
    for beta1 in (0.02, 0.01):
        short = replace(rule, beta1=beta1)
        path = flow_path(loss, short.init(w), short, 5)
        gaps.append(np.linalg.norm(path.params[-1] - none.params[-1]))
    assert gaps[1] < 0.02 * np.linalg.norm(none.params[-1] - w)
    assert abs(np.log2(gaps[0] / gaps[1]) - 1) < 0.2


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_complementarity_problem(k, seed):
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((k, k, 12))
    D = D + D.transpose(1, 0, 2)

    def B(X):
        return np.einsum("abl,cdl,cd->ab", D, D, X)

    A = rng.standard_normal((k, k))
    A = A + A.T - np.eye(k)
    X = solve_complementarity(A, B)
    Y = A + B(X)
    assert np.linalg.eigvalsh(X)[0] >= -1e-9 * np.abs(A).max()
    assert np.linalg.eigvalsh(Y)[0] >= -1e-9 * np.abs(A).max()
    assert abs(np.sum(X * Y)) <= 1e-9 * max(np.abs(X).max() * np.abs(A).max(), 1e-30)
