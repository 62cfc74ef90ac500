"""Learning-rate schedules, as short texts: `constant`, `linear_warmup:100`, `cosine:1000`.

A schedule is a factor on the learning rate, a function of the number t of optimizer steps taken
before the current one (so the first step uses t = 0, as in optax). Flows evaluate it at real t.

| text | factor | optax |
| --- | --- | --- |
| `constant` | 1 | `constant_schedule` |
| `linear_warmup:N` | min(1, (t + 1) / N) | `linear_schedule(lr / N, lr, N - 1)` |
| `cosine:N[:f]` | f + (1-f) ½ (1 + cos(π min(t,N)/N)) | `cosine_decay_schedule(lr, N, alpha=f)` |

No factor is ever 0: the preconditioner 1/η must stay finite. So the warm-up starts at 1/N and the
cosine ends at f, 0.01 unless told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cflows_ray.checks import ConfigError
from cflows_ray.declare import declare

if TYPE_CHECKING:
    from jaxtyping import Array, Float

ALLOWED = "constant, linear_warmup:N or cosine:N[:final_fraction]"


class Schedule(NamedTuple):
    """A parsed schedule: its kind, its length in steps, and its last factor (cosine only)."""

    kind: str = "constant"
    num_steps: int = 1
    final_fraction: float = 0.01

    def factor(self, t: Float[Array, ""]) -> Float[Array, ""]:
        """Return the factor on the learning rate after `t` optimizer steps."""
        import jax.numpy as jnp  # here: configurations are checked without JAX

        if self.kind == "linear_warmup":
            return jnp.minimum(1.0, (t + 1.0) / self.num_steps)
        if self.kind == "cosine":
            progress = jnp.minimum(t, float(self.num_steps)) / self.num_steps
            decay = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
            return self.final_fraction + (1.0 - self.final_fraction) * decay
        return jnp.ones_like(t)


def parse_schedule(text: Any) -> Schedule:
    """Parse a schedule.

    Raises `ConfigError` if it is none of the texts listed above.

    Example:
        >>> parse_schedule("cosine:1000").num_steps
        1000
    """
    kind, *numbers = str(text).split(":")
    try:
        if kind == "constant" and not numbers:
            return Schedule()
        if kind == "linear_warmup" and len(numbers) == 1 and int(numbers[0]) >= 1:
            return Schedule(kind, int(numbers[0]))
        if kind == "cosine" and len(numbers) in (1, 2) and int(numbers[0]) >= 1:
            fraction = float(numbers[1]) if len(numbers) == 2 else 0.01
            if 0 < fraction <= 1:
                return Schedule(kind, int(numbers[0]), fraction)
    except ValueError:
        pass
    raise ConfigError(f"schedule must be {ALLOWED}, got {text!r}")


def check_schedule(name: str, value: Any) -> Any:
    """Return a schedule's text; raises `ConfigError` if it is none of those listed above."""
    del name
    parse_schedule(value)
    return value


def schedule() -> Any:
    """Declare the learning-rate schedule, which every rule has."""
    return declare(
        "constant",
        check=check_schedule,
        kind="text",
        meaning="learning-rate schedule, e.g. constant, linear_warmup:100",
    )
