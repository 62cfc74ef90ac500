"""Where the stable flow of a small network starts, for the tests of its schemes."""

import jax
import jax.numpy as jnp

from cflows_ray.flows.integrators import Place
from cflows_ray.flows.trust import Passed
from tests.networks import NETWORKS

LOSS, PARAMS = NETWORKS["tanh_regression"]()


def begin(rule, loss, w):
    """Return where the flow of a loss starts, and what it keeps."""
    one = jnp.ones((), w.dtype)
    here = Place(w, rule.absorb(one, rule.init(w), jax.grad(loss)(w)), one)
    return here, Passed.begin(w, here.state)
