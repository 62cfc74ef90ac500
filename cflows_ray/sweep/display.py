"""What a person sees while a sweep runs: a calm live view, or plain lines.

Knows neither Ray nor storage: it is told what happens to each run and draws it. Of runs that no
process holds it keeps a word each, and it counts as it is told: a picture takes as long for 100,000
runs as for ten.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cflows_ray.schema import NOT_FINISHED, RUN_STATUSES
from cflows_ray.sweep.run_config import RunConfig

MAX_ROWS = 12
MAX_IN_LINE = 3  # running runs in a plain line
PLAIN_EVERY_S = 10.0
RATE_WINDOW_S = 60.0


OPEN = ("waiting", "running")


@dataclass
class RunView:
    """What is known of a run that has a process."""

    config: RunConfig
    step: int = 0
    train_loss: float | None = None
    effective_sharpness: float | None = None
    reported: bool = False  # since it got its process


class Display:
    """The live view of a sweep.

    Args:
        name: of the sweep.
        runs: all runs that the sweep asks for.
        ended: status of those that had ended before.
        console: where to draw.

    Example:
        >>> run = RunConfig(workload="saddle_2d", rule="gradient_descent", lr=0.2)
        >>> display = Display("example", [run], {run.run_id: "finished"})
        >>> display.summary()
        '1/1 runs done'
    """

    def __init__(
        self,
        name: str,
        runs: Iterable[RunConfig],
        ended: Mapping[str, str],
        console: Console | None = None,
    ) -> None:
        self.console = console or Console()
        self._name = name
        self._runs = {run.run_id: run for run in runs}
        self._statuses = dict.fromkeys(self._runs, "waiting")
        self._counts = Counter(self._statuses.values())
        # Optimizer steps to go, of runs that have not ended; those done that are known of.
        self._steps_left = sum(run.steps for run in self._runs.values())
        self._steps_done: dict[str, int] = {}
        self._running: dict[str, RunView] = {}
        self.ended(ended)
        self._history: deque[tuple[float, int]] = deque()
        self._steps_here = 0
        self._last_plain = 0.0
        self._last_line = ""
        self._live: Live | None = None

    # Telling --------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to draw."""
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=self.console, refresh_per_second=2
            )
            self._live.start()

    def stop(self) -> None:
        """Draw for the last time."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        else:
            self.tick(force=True)

    def is_open(self, run_id: str) -> bool:
        """Say whether a run has not ended yet, as far as is known here."""
        return self._statuses[run_id] in OPEN

    def ended(self, statuses: Mapping[str, str]) -> None:
        """Take note of runs that have ended otherwise than by this launch, with their statuses."""
        for run_id in statuses.keys() & self._runs.keys():
            self._becomes(run_id, statuses[run_id])

    def started(self, run_id: str) -> None:
        """Take note that a run has got a process."""
        self._becomes(run_id, "running")
        self._running[run_id].reported = False

    def progressed(self, run_id: str, result: Mapping[str, Any]) -> None:
        """Take note of a chunk; `result` has the fields of `session.Progress`."""
        self._becomes(run_id, "running")
        view, step = self._running[run_id], int(result["step"])
        self._steps_here += int(result["advanced"])
        self._steps_left -= step - self._steps_done.get(run_id, 0)
        self._steps_done[run_id] = view.step = step
        view.reported = True
        view.train_loss = result.get("train_loss")
        view.effective_sharpness = result.get("effective_sharpness")
        self._becomes(run_id, str(result["status"]))
        self._history.append((time.monotonic(), self._steps_here))
        while len(self._history) > 2 and self._history[0][0] < time.monotonic() - RATE_WINDOW_S:
            self._history.popleft()

    def waits(self, run_id: str) -> None:
        """Take note that a run has lost its process or was stopped, and goes on later."""
        self._becomes(run_id, "waiting")

    def left(self, run_id: str) -> None:
        """Take note that a run has no process any more; unless it has ended it goes on later."""
        if self._statuses[run_id] == "running":
            self.waits(run_id)

    def all_left(self) -> None:
        """Take note that no run has a process any more."""
        for run_id in list(self._running):
            self.waits(run_id)

    def given_up(self, run_id: str) -> None:
        """Take note that a run has lost its process too often, until the next launch."""
        self._becomes(run_id, "given up")

    def _becomes(self, run_id: str, status: str) -> None:
        """Give a run another status, and keep the counts and the running ones up to date."""
        before = self._statuses[run_id]
        if status == before:
            return
        self._statuses[run_id] = status
        self._counts[before] -= 1
        self._counts[status] += 1
        config = self._runs[run_id]
        to_go = config.steps - self._steps_done.get(run_id, 0)
        self._steps_left += to_go * ((status in OPEN) - (before in OPEN))
        if status not in OPEN:
            self._steps_done.pop(run_id, None)
        if status == "running":
            # a copy is drawn: the live view has a thread of its own
            step = self._steps_done.get(run_id, 0)
            self._running = {**self._running, run_id: RunView(config, step)}
        elif before == "running":
            self._running = {i: view for i, view in self._running.items() if i != run_id}

    def note(self, text: str) -> None:
        """Say something once, above the live view."""
        self.console.print(Text(text), highlight=False, soft_wrap=True)

    def tick(self, force: bool = False) -> None:
        """Where no live view can be drawn: print a line now and then, if anything changed."""
        if self._live is not None:
            return
        line = "; ".join([f"{self._name}: {self.summary()}", *self._running_in_words()])
        due = time.monotonic() - self._last_plain >= PLAIN_EVERY_S
        if (due or force) and line != self._last_line:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)
            self._last_plain, self._last_line = time.monotonic(), line

    # Counting -------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Return the number of runs by status."""
        return {status: count for status, count in list(self._counts.items()) if count}

    def steps_per_second(self) -> float | None:
        """Return optimizer steps a second over the last minute, all runs together."""
        if len(self._history) < 2:  # the first chunk tells more of compiling than of steps
            return None
        (t0, n0), (t1, n1) = self._history[0], self._history[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 and n1 > n0 else None

    def seconds_left(self) -> float | None:
        """Return the time left if it goes on like this."""
        rate = self.steps_per_second()
        return self._steps_left / rate if rate and self._steps_left > 0 else None

    def summary(self) -> str:
        """Return the state of the sweep in one line."""
        counts = self.counts()
        done = sum(counts.get(s, 0) for s in RUN_STATUSES)
        parts = [f"{done}/{len(self._runs)} runs done"]
        for status in ("running", *NOT_FINISHED, "given up"):
            if counts.get(status):
                parts.append(f"{counts[status]} {status}")
        rate, left = self.steps_per_second(), self.seconds_left()
        if rate and counts.get("running"):
            parts.append(f"{rate:.3g} steps/s")
        if left is not None and counts.get("running"):
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def _running_in_words(self) -> list[str]:
        """Return where the first running runs stand, for plain lines."""
        views = [v for v in self._running.values() if v.reported]
        words = [
            f"{v.config.rule} lr={v.config.lr:g} seed={v.config.seed} step {v.step} loss "
            f"{_number(v.train_loss, '.4g')} sharpness {_number(v.effective_sharpness, '#.4g')}"
            for v in views[:MAX_IN_LINE]
        ]
        return words + ([f"and {len(views) - len(words)} more"] if len(views) > len(words) else [])

    # Drawing --------------------------------------------------------------------------------

    def _render(self) -> Group:
        counts = self.counts()
        done = sum(counts.get(s, 0) for s in RUN_STATUSES)
        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text(self._name, style="bold"),
            ProgressBar(total=max(1, len(self._runs)), completed=done, width=24),
            Text(self.summary()),
        )
        running = list(self._running.values())
        if not running:
            return Group(head)
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for title in ("workload", "rule", "lr", "seed", "step", "loss", "effective sharpness"):
            left = title in ("workload", "rule")
            table.add_column(title, justify="left" if left else "right", no_wrap=True)
        for view in running[:MAX_ROWS]:
            table.add_row(
                view.config.workload,
                view.config.rule,
                f"{view.config.lr:g}",
                str(view.config.seed),
                f"{view.step}/{view.config.steps}" if view.reported else "starting",
                _number(view.train_loss, ".4g"),
                _number(view.effective_sharpness, "#.4g"),
            )
        if len(running) > MAX_ROWS:
            table.add_row(f"and {len(running) - MAX_ROWS} more")
        return Group(head, table)


def say(console: Console, text: str) -> None:
    """Print a line as it is: no markup, no colours, no breaks."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_whole(console: Console, table: Table) -> None:
    """Print a table without shortening its words, even where the terminal is too narrow."""
    needed = table.__rich_measure__(console, console.options.update(max_width=1000)).maximum
    wide = Console(
        file=console.file, width=max(console.width, needed), force_terminal=console.is_terminal
    )
    wide.print(table, highlight=False)


def duration(seconds: float) -> str:
    """Return a duration in words, to the precision of a glance.

    Example:
        >>> duration(40), duration(170), duration(9000)
        ('40 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
