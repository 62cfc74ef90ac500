"""Learning-rate schedules, as short texts: `constant`, `linear_warmup:100+cosine:1000`.

A schedule is a factor on the learning rate, a function of the number t of optimizer steps taken
before the current one (so the first step uses t = 0, as in optax). Flows evaluate it at real t.

| text | factor | optax |
| --- | --- | --- |
| `constant` | 1 | `constant_schedule(lr)` |
| `linear_warmup:N` | min(1, (t + 1) / N) | `linear_schedule(lr / N, lr, N - 1)` |
| `linear:N[:f]` | 1 - (1-f) min(t,N)/N | `linear_schedule(lr, f * lr, N)` |
| `cosine:N[:f]` | f + (1-f) ½ (1 + cos(π min(t,N)/N)) | `cosine_decay_schedule(lr, N, alpha=f)` |
| `step:N[:f]` | f^⌊t/N⌋ | `exponential_decay(lr, N, f, staircase=True)` |
| `exponential:N[:f]` | f^(t/N) | `exponential_decay(lr, N, f)` |
| `linear_warmup:N+decay` | warm-up, and a decay from t = N on | `join_schedules([.., ..], [N])` |

Unless told, f is 0.01 for `linear` and `cosine`, which end there, and 0.1 for `step` and
`exponential`, which multiply by it every N steps.

In Python any function of t will do as well, such as an optax schedule that begins at 1
(`cosine_decay_schedule(1.0, 1000)`): it is the factor, and `lr` the peak. A sweep takes texts only.

No factor is ever 0, as the preconditioner 1/η must stay finite: the warm-up starts at 1/N, and what
falls below 1e-12 is 1e-12.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cflows_ray.checks import ConfigError
from cflows_ray.declare import declare
from cflows_ray.lazy import LazyModule

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    from jaxtyping import Array, Float
else:
    jax, jnp = LazyModule("jax"), LazyModule("jax.numpy")

ScheduleLike = str | Callable[[Any], Any]
"""A text, or in Python a function of t."""

LEAST_FACTOR = 1e-12
WARMUP = "linear_warmup"
# Decays, and their last number where a text does not say it.
DECAYS = {"linear": 0.01, "cosine": 0.01, "step": 0.1, "exponential": 0.1}
ALLOWED = (
    f"constant, {WARMUP}:N, a decay ({', '.join(DECAYS)}, each with :N[:f]) or {WARMUP}:N+decay"
)


@dataclass(frozen=True)
class Schedule:
    """A parsed schedule: factors that are multiplied.

    Attributes:
        kinds: of the factors.
        numbers: of each: the t at which it begins, its length N in steps, and f (1 in a warm-up).
            In a compiled program they are arguments.
    """

    kinds: tuple[str, ...]
    numbers: tuple[tuple[Any, Any, Any], ...]

    def factor(self, t: Float[Array, ""]) -> Float[Array, ""]:
        """Return the factor on the learning rate after `t` optimizer steps."""
        product = jnp.ones_like(t)
        for kind, numbers in zip(self.kinds, self.numbers, strict=True):
            begin, length, f = (jnp.asarray(x).astype(t.dtype) for x in numbers)
            product = product * _FACTORS[kind](jnp.maximum(t - begin, 0.0), length, f)
        return jnp.maximum(product, LEAST_FACTOR) if self.kinds else product


def _linear(t: Array, length: Array, f: Array) -> Array:
    return 1.0 - (1.0 - f) * jnp.minimum(t, length) / length


def _cosine(t: Array, length: Array, f: Array) -> Array:
    progress = jnp.minimum(t, length) / length
    return f + (1.0 - f) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))


def _warmup(t: Array, length: Array, f: Array) -> Array:
    del f
    return jnp.minimum(1.0, (t + 1.0) / length)


_FACTORS: dict[str, Callable[[Array, Array, Array], Array]] = {
    WARMUP: _warmup,
    "linear": _linear,
    "cosine": _cosine,
    "step": lambda t, length, f: f ** jnp.floor(t / length),
    "exponential": lambda t, length, f: f ** (t / length),
}


def parse_schedule(text: Any) -> Schedule:
    """Parse a schedule.

    Raises `ConfigError` if it is none of the texts listed above.

    Example:
        >>> parse_schedule("linear_warmup:10+cosine:1000").numbers  # begin, length, f
        ((0, 10, 1.0), (10, 1000, 0.01))
    """
    found = _parse(text) if isinstance(text, str) else None
    if found is None:
        raise ConfigError(f"schedule must be {ALLOWED}, got {text!r}")
    return found


def _parse(text: str) -> Schedule | None:
    """Return a schedule, or None if the text is not allowed."""
    kinds: tuple[str, ...] = ()
    numbers: tuple[tuple[Any, Any, Any], ...] = ()
    begin = 0
    for kind, *given in (part.split(":") for part in text.split("+") if text != "constant"):
        is_warmup = kind == WARMUP
        expected = kinds == () if is_warmup else kinds in ((), (WARMUP,)) and kind in DECAYS
        if not expected or len(given) not in ((1,) if is_warmup else (1, 2)):
            return None
        length = _length(given[0])
        f = _fraction(given[1]) if len(given) == 2 else DECAYS.get(kind, 1.0)
        if length is None or f is None:
            return None
        kinds, numbers = (*kinds, kind), (*numbers, (begin, length, f))
        begin += length
    return Schedule(kinds, numbers)


def _length(text: str) -> int | None:
    return int(text) if text.isdecimal() and int(text) >= 1 else None


def _fraction(text: str) -> float | None:
    try:
        return float(text) if 0 < float(text) <= 1 else None
    except ValueError:
        return None


def factor(schedule: ScheduleLike | Schedule, t: Float[Array, ""]) -> Array:
    """Return the factor on the learning rate after `t` optimizer steps, in the dtype of t.

    Example:
        >>> import jax.numpy as jnp
        >>> float(factor("step:100:0.5", jnp.asarray(250.0)))
        0.25
    """
    if callable(schedule):
        return jnp.maximum(jnp.asarray(schedule(t)).astype(t.dtype), LEAST_FACTOR)
    return (parse_schedule(schedule) if isinstance(schedule, str) else schedule).factor(t)


def check_factors(schedule: Any, num_steps: int) -> None:
    """Look at all factors of a schedule that is a function; of a text they are known to be right.

    Raises `ConfigError` at the first step at which it is not a finite number >= 0.
    """
    if not callable(schedule):
        return
    import numpy as np

    steps = jnp.arange(num_steps, dtype=jnp.result_type(float))
    found = np.asarray(jax.vmap(lambda t: jnp.asarray(schedule(t)))(steps))
    if found.shape != (num_steps,):
        raise ConfigError(f"schedule must return a number, got an array of {found.shape[1:]}")
    wrong = np.flatnonzero(~(np.isfinite(found) & (found >= 0)))
    if len(wrong):
        what = f"{found[wrong[0]]} at step {wrong[0]}"
        raise ConfigError(f"schedule must be finite and >= 0, got {what}")


def check_schedule(name: str, value: Any) -> Any:
    """Return a schedule, a function or a text.

    Raises `ConfigError` if it is a text and none of those listed above.
    """
    del name
    if not callable(value):
        parse_schedule(value)
    return value


def schedule() -> Any:
    """Declare the learning-rate schedule, which every rule has."""
    return declare(
        "constant",
        check=check_schedule,
        kind="text",
        meaning="learning-rate schedule, e.g. constant, linear_warmup:100+cosine:1000",
    )
