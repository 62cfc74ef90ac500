"""The stable flow of one small network, step by step, for the tests of its schemes."""

import jax
import jax.numpy as jnp

from cflows_ray.curvature import linearize_gradient
from cflows_ray.flows import FLOWS, Ask, FlowContext, Reference, Start
from cflows_ray.flows.integrators import Place
from cflows_ray.flows.trust import Passed
from tests.networks import NETWORKS

LOSS, PARAMS = NETWORKS["tanh_regression"]()


def begin(rule, loss, w):
    """Return where the flow of a loss starts, and what it keeps."""
    one = jnp.ones((), w.dtype)
    here = Place(w, rule.absorb(one, rule.init(w), jax.grad(loss)(w)), one)
    return here, Passed.begin(w, here.state)


def one_step(rule, options):
    """Return a function of w that makes one step of the flow from there and returns its state."""

    def step(w):
        at, empty, yes = linearize_gradient(LOSS, w), rule.init(w), jnp.ones((), bool)
        t = jnp.ones((), w.dtype)
        absorbed = rule.absorb(t, empty, at.grad)
        start = Start(t, w, empty, yes, w, empty, absorbed, jnp.ones((2, w.size), w.dtype))
        reference = Reference(t, w, w, w, yes, at, absorbed, ~yes)
        context = FlowContext(LOSS, rule, options, 2)
        flow = FLOWS["stable"]
        return flow.step(context, flow.init(context, start), reference, Ask(~yes, yes)).state

    return step
