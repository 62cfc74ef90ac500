"""How far flows with momentum are from the optimizer, by the dense oracles: form, scheme, ν.

    python -m tests.benchmarks.momentum_flows forms heavy_ball_0.9 adam_0.9_0.99
    python -m tests.benchmarks.momentum_flows schemes adam_0.9_0.99

A tanh network on digits reduced to eight principal components, squared error, 166 parameters.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from tests.benchmarks.agreement import DenseHessianLoss, on_cpu
from tests.oracles.momentum import FlowPath, MomentumRule, Scheme, State, flow_path, optimizer_path

WARMUP, STEPS = 30, 300
INPUTS, HIDDEN, CLASSES, EXAMPLES = 8, 6, 10, 100

CASES = {
    "heavy_ball_0.5": MomentumRule("sgd", 1.1, 0.5),
    "heavy_ball_0.9": MomentumRule("sgd", 0.6, 0.9),
    "nesterov_0.9": MomentumRule("sgd", 0.4, 0.9, nesterov=True),
    "adam_0.9_0.99": MomentumRule("adam", 0.05, 0.9, 0.99),
    "adam_0.9_0.999": MomentumRule("adam", 0.05, 0.9, 0.999),
    "adamw_0.9_0.99": MomentumRule("adam", 0.05, 0.9, 0.99, decay=0.05),
    "nadam_0.9_0.99": MomentumRule("adam", 0.015, 0.9, 0.99, nesterov=True),
    "rmsprop_0.9_0.99": MomentumRule("rmsprop", 0.005, 0.9, 0.99),
    "scalar_adam_0.9_0.99": MomentumRule("adam", 1.2, 0.9, 0.99, scalar=True),
    "adam_0.99_0.999": MomentumRule("adam", 0.2, 0.99, 0.999),
}
FORMS = {
    "stable": Scheme(kind="split", central=False),
    "central": Scheme(kind="split"),
    "reduced": Scheme(reduced=True),
    "mean squared": Scheme(kind="split", mean_squared=True),
    "centred": Scheme(kind="split", centred=True),
}
SCHEMES = {
    f"{kind} {substeps}{'' if exponential else ', plain filter'}": Scheme(
        substeps, kind, exponential=exponential
    )
    for kind in ("euler", "staggered", "extrapolated", "split")
    for exponential in (True, False)
    for substeps in (4, 8, 16)
    if exponential or kind == "euler"
}


def digits(seed: int = 0) -> tuple[Callable, np.ndarray]:
    """Return loss and parameters of the network on digits."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images[:EXAMPLES] - images[:EXAMPLES].mean(0)
    _, _, axes = np.linalg.svd(images, full_matrices=False)
    x = images @ axes[:INPUTS].T
    x, y = x / x.std(), np.eye(CLASSES)[labels[:EXAMPLES]]
    shapes = [
        (INPUTS, HIDDEN),
        (HIDDEN,),
        (HIDDEN, HIDDEN),
        (HIDDEN,),
        (HIDDEN, CLASSES),
        (CLASSES,),
    ]
    rng = np.random.default_rng(seed)
    parts = [rng.standard_normal(s) / np.sqrt(s[0]) if len(s) == 2 else np.zeros(s) for s in shapes]
    ends = np.cumsum([p.size for p in parts])[:-1]

    def loss(w: jax.Array) -> jax.Array:
        pieces = [p.reshape(s) for p, s in zip(jnp.split(w, ends), shapes, strict=True)]
        hidden = jnp.asarray(x)
        for i in range(0, len(pieces), 2):
            hidden = hidden @ pieces[i] + pieces[i + 1]
            hidden = jnp.tanh(hidden) if i < len(pieces) - 2 else hidden
        return 0.5 * jnp.mean(jnp.sum((hidden - y) ** 2, 1))

    return loss, np.concatenate([p.ravel() for p in parts])


def midpoint_gaps(path: FlowPath, states: list[State], warmup: int) -> np.ndarray:
    """Return the distance to the midpoint over the distance travelled, steps 1..n-1."""
    w = np.array([s.w for s in states])[warmup - 1 :]
    middle = (w[:-2] + 2 * w[1:-1] + w[2:]) / 4
    n = min(len(path.params), len(middle))
    gap = np.linalg.norm(np.array(path.params[1:n]) - middle[1:n], axis=1)
    return gap / np.linalg.norm(middle[1:n] - w[1], axis=1)


def compare_forms(name: str) -> None:
    """Print a line for each form of the flow."""
    loss, w = digits()
    rule = CASES[name]
    states = optimizer_path(loss, w, rule, WARMUP + STEPS + 2)
    at_edge = None
    for form, scheme in FORMS.items():
        if form == "mean squared" and rule.family == "sgd":
            continue  # no ν
        begin = time.perf_counter()
        path = flow_path(loss, states[WARMUP], rule, STEPS, scheme, DenseHessianLoss)
        if form == "stable":
            crossing = int(np.argmax(np.array(path.sharpness) > 2))
            at_edge = np.arange(1, STEPS + 1) > crossing
            print(f"{name}: crossing {crossing}, sharpness at the end {path.sharpness[-1]:.2f}")
        gaps = midpoint_gaps(path, states, WARMUP)
        edge = gaps[at_edge[: len(gaps)]]
        m = np.array([s.m for s in states])[WARMUP + 1 :]
        m = np.mean(m[STEPS - 100 : STEPS], axis=0)
        m_gap = [
            np.linalg.norm(np.mean(ms[-101:-1], axis=0) - m) / np.linalg.norm(m)
            for ms in (path.m, path.m_predicted)
        ]
        late = [loss(s.w) for s in states[WARMUP + STEPS - 100 : WARMUP + STEPS]]
        predicted = np.mean(path.predicted[-101:-1]) / np.mean(late) - 1
        print(
            f"  {form:13s} below {np.mean(gaps[: max(crossing, 1)]):.4f} at the edge: mean "
            f"{np.mean(edge):.4f} median {np.median(edge):.4f} end {gaps[-1]:.4f}; loss of the "
            f"last 100 steps {100 * predicted:+.1f}%; m {m_gap[0]:.3f} predicted {m_gap[1]:.3f}; "
            f"critical {max(path.num_critical)} ({time.perf_counter() - begin:.0f} s)",
            flush=True,
        )


def crossing_step(loss: Callable, rule: MomentumRule, states: list[State]) -> int:
    """Return the first step, of every fifth, at which the optimizer is at the edge."""
    dense = DenseHessianLoss(loss)
    for k in range(WARMUP, len(states), 5):
        _, grad, hessian, _ = dense.at(states[k].w)
        s = rule.absorb(states[k], grad)
        metric = np.diag(rule.metric(s.nu, s.t, len(s.w)))
        if scipy.linalg.eigh(hessian, metric, eigvals_only=True)[-1] > 1.97:
            return k
    return len(states)


def compare_schemes(name: str) -> None:
    """Print the distance of each scheme from the finest."""
    loss, w = digits()
    rule = CASES[name]
    states = optimizer_path(loss, w, rule, WARMUP + STEPS)
    begin = max(WARMUP, crossing_step(loss, rule, states) - 20)
    steps = 60
    run = lambda scheme: flow_path(loss, states[begin], rule, steps, scheme, DenseHessianLoss)  # noqa: E731
    finest = run(Scheme(32, "split"))
    reference = np.array(finest.params)
    way = np.linalg.norm(reference - reference[0], axis=1).max()
    print(f"{name}: critical {max(finest.num_critical)}")
    for label, scheme in SCHEMES.items():
        path = run(scheme)
        gap = np.linalg.norm(np.array(path.params) - reference, axis=1) / way
        at = np.array(path.num_critical) > 0
        edge = np.abs(np.array(path.sharpness)[at] - 2).max(initial=0)
        predicted = np.abs(np.array(path.predicted) / np.array(finest.predicted) - 1)
        print(
            f"  {label:24s} largest {gap.max():.1e} end {gap[-1]:.1e} predicted loss "
            f"{predicted.max():.1e} end {predicted[-1]:.1e} |sharpness - 2| {edge:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    with on_cpu():
        for case in sys.argv[2:] or CASES:
            {"forms": compare_forms, "schemes": compare_schemes}[sys.argv[1]](case)
