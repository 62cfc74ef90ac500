"""Ctrl-C in `run_paired`, the line that says where it is, and the length of its chunks."""

import io
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from cflows_ray import GradientDescent, PairedRun, run_paired
from cflows_ray.paired.progress import ChunkLength, ProgressLine, is_wanted

SCRIPT = """
import signal

import jax.numpy as jnp

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from cflows_ray import GradientDescent, run_paired

result = run_paired(
    lambda w: jnp.sum(w**2), jnp.ones(2), GradientDescent(1e-5), steps=2_000_000_000, flows=(),
    record_every=100,
)
steps = result.steps.step.tolist()
assert steps == list(range(0, 100 * len(steps), 100)), steps
print(result.status, "|", result.status_detail, "|", steps[-1], "|", len(result.final))
"""


def test_a_real_interrupt_gives_back_whole_rows():
    """The progress line says when the first rows are there; then Ctrl-C."""
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "CFLOWS_PROGRESS": "1"},
    )  # fmt: skip
    line = child.stderr.readline()
    child.send_signal(signal.SIGINT)
    out, errors = child.communicate(timeout=300)
    assert child.returncode == 0, errors
    assert line.startswith("step "), line
    status, detail, last, num_final = (part.strip() for part in out.split("|"))
    assert status == "interrupted"
    at = int(detail.removeprefix("interrupted after step ").removesuffix(" of 2000000000"))
    assert 0 <= at - int(last) <= 100
    assert num_final == "1"


class Interrupted(PairedRun):
    """A run in whose third chunk a person presses Ctrl-C."""

    chunks = 0
    last = 3

    def advance(self, state, num_steps):
        self.chunks += 1
        if self.chunks == self.last:
            raise KeyboardInterrupt
        return super().advance(state, num_steps)


def loss(w):
    return (w**2).sum()


def test_rows_and_final_belong_together(monkeypatch):
    whole = run_paired(loss, np.ones(2), GradientDescent(0.1), steps=9, flows=("midpoint",))
    monkeypatch.setattr("cflows_ray.paired.call.PairedRun", Interrupted)
    part = run_paired(loss, np.ones(2), GradientDescent(0.1), steps=9, flows=("midpoint",))
    assert part.status == "interrupted"
    done = part.steps.step.max()
    assert part.status_detail == f"interrupted after step {done} of 9"
    pd.testing.assert_frame_equal(part.steps, whole.steps[: len(part.steps)], check_exact=True)
    np.testing.assert_allclose(part.final["discrete"], 0.8**done, rtol=1e-6)


def test_with_nothing_to_give_back_it_is_raised(monkeypatch):
    monkeypatch.setattr("cflows_ray.paired.call.PairedRun", Interrupted)
    monkeypatch.setattr(Interrupted, "last", 1)
    with pytest.raises(KeyboardInterrupt):
        run_paired(loss, np.ones(2), GradientDescent(0.1), steps=9, flows=("midpoint",))


def test_chunks_grow_and_shrink_to_a_second():
    length, taken = ChunkLength(), []
    for seconds_per_step in (1e-3,) * 8 + (0.1, 0.1, 50.0, 50.0):
        taken.append(length.steps)
        length.took(seconds_per_step * length.steps)
    assert taken == [1, 4, 16, 64, 256, 1000, 1000, 1000, 1000, 10, 10, 1]


class Terminal(io.StringIO):
    def isatty(self):
        return True


ROWS = pd.DataFrame(
    {
        "process": ["discrete", "stable"],
        "train_loss": [0.25, 9.0],
        "effective_sharpness": [np.nan, 9.0],
    }
)


def shown(stream, seconds):
    now = iter([0.0, *seconds])
    line = ProgressLine(1000, stream, clock=lambda: next(now))
    for i in range(len(seconds)):
        line.show(i, ROWS)
    return line


def test_a_line_on_a_terminal_is_rewritten_and_taken_away():
    stream = Terminal()
    line = shown(stream, [1.0, 3.1, 3.2, 4.0])
    texts = stream.getvalue().split("\r")
    assert texts == ["", "step 1 of 1,000, 3 s, loss 0.25", "step 3 of 1,000, 4 s, loss 0.25"]
    line.clear()
    assert stream.getvalue().endswith("\r" + " " * len(texts[-1]) + "\r")


def test_elsewhere_a_line_comes_every_half_minute():
    stream = io.StringIO()
    shown(stream, [2.0, 5.0, 20.0, 34.0, 36.0]).clear()
    assert stream.getvalue().splitlines() == [
        "step 1 of 1,000, 5 s, loss 0.25",
        "step 4 of 1,000, 36 s, loss 0.25",
    ]


def test_a_short_call_is_silent():
    stream = Terminal()
    shown(stream, [0.5, 2.9]).clear()
    assert stream.getvalue() == ""


def test_it_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("CFLOWS_PROGRESS", "0")
    assert not is_wanted(True)
    monkeypatch.delenv("CFLOWS_PROGRESS")
    assert is_wanted(True)
    assert not is_wanted(False)
