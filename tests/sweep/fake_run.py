"""A paired run that costs nothing, for tests of storage, checkpoints and scheduling.

It has `PairedRun`'s interface and all its habits that those rely on: the state is all there is,
rows may lag behind the state, and the rows are the same whatever the sizes of the chunks. Its
numbers are chaotic, so that one wrong bit at a restart shows in every later row.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cflows_ray.flows import steps_columns
from cflows_ray.sweep.run_config import RunConfig

INTEGERS = ("num_critical", "num_gradients", "num_hvps", "num_third_derivatives")
LISTS = ("effective_eigs", "sigma_eigs", "displacement_sq")


class JaxRuntimeError(RuntimeError):
    """Named as JAX's own, without JAX."""


class FakeState(NamedTuple):
    """The state: optimizer steps done and a point of a chaotic map."""

    step: np.ndarray  # () int64
    point: np.ndarray  # (2,) float64
    nothing: np.ndarray  # (0, 2) float32: arrays without elements occur in real states too


class FakePaired:
    """Two processes on the logistic map. The learning rate is where trouble is asked for.

    lr = 13: diverges at step 7. lr = 17: raises at step 7. lr = 19: raises MemoryError at step 7.
    lr = 23: from step 7 on the device has too little memory.
    """

    num_params = 2
    compile_s = 0.25

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    def start(self) -> FakeState:
        first = 0.1 + 0.01 * self.config.seed + self.config.lr / 1000
        return FakeState(np.array(0), np.array([first, 0.3]), np.zeros((0, 2), np.float32))

    def advance(self, state: FakeState, num_steps: int) -> tuple[FakeState, pd.DataFrame]:
        rows: list[dict[str, Any]] = []
        first = int(state.step)
        last = min(first + num_steps, self.config.steps)
        point = state.point
        for step in range(first, last):
            trouble = step >= 7
            if trouble and self.config.lr == 17:
                raise FloatingPointError("seventeen is not a learning rate\nmore lines")
            if trouble and self.config.lr == 19:
                raise MemoryError("not enough memory")
            if trouble and self.config.lr == 23:
                raise JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes")
            rows += self._rows(step, point)
            if trouble and self.config.lr == 13:
                return FakeState(np.array(step), point * np.nan, state.nothing), self._frame(rows)
            point = 3.9 * point * (1 - point)
        if last == self.config.steps and first < last:
            rows += self._rows(last, point)
        return FakeState(np.array(last), point, state.nothing), self._frame(rows)

    def _rows(self, step: int, point: np.ndarray) -> list[dict[str, Any]]:
        if step % self.config.record_every and step != self.config.steps:
            return []
        common = {"step": step, "effective_eigs": [float(point[0]), 1.0], "status": "ok"}
        counters = {"num_gradients": step, "num_critical": step % 3}
        discrete = {"process": "discrete", "train_loss": float(point[0])}
        discrete["effective_sharpness"] = 2 * float(point[0])
        central = {"process": "central", "train_loss": float(point[1]), "sigma_eigs": []}
        return [{**common, **counters, **discrete}, {**common, **central}]

    def _frame(self, rows: list[dict[str, Any]]) -> pd.DataFrame:
        names = [column.name for column in steps_columns() if column.name != "run_id"]
        frame = pd.DataFrame(rows, columns=names)
        for name in names:
            if name in INTEGERS:
                frame[name] = frame[name].astype("Int64")
            elif name not in (*LISTS, "step", "process", "status"):
                frame[name] = frame[name].astype("float64")
            else:
                frame[name] = frame[name].astype(object)
        return frame

    def is_done(self, state: FakeState) -> bool:
        return bool(np.isnan(state.point[0])) or int(state.step) >= self.config.steps

    def outcome(self, state: FakeState) -> tuple[str, str | None]:
        if np.isnan(state.point[0]):
            return "diverged", f"loss not finite at step {int(state.step)}"
        return "finished", None

    def doubts(self, state: FakeState) -> str | None:
        return f"central: {int(state.step)} stiff"

    def step(self, state: FakeState) -> int:
        return int(state.step)

    def to_arrays(self, state: FakeState) -> dict[str, np.ndarray]:
        return state._asdict()

    def from_arrays(self, arrays: dict[str, np.ndarray]) -> FakeState:
        return FakeState(**arrays)


def build_fake(config: RunConfig) -> tuple[FakePaired, FakeState]:
    """Stand in for `session.build_paired`."""
    paired = FakePaired(config)
    return paired, paired.start()


def build_mended(config: RunConfig) -> tuple[FakePaired, FakeState]:
    """Stand in for `session.build_paired` after the mistake was mended: nothing raises."""
    paired, state = build_fake(config)
    paired.config = dataclasses.replace(config, lr=1.0)
    return paired, state
