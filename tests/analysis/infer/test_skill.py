"""Skill against lead time, of forecasts whose errors are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import analysis

EVERY, STEPS, SPEED = 50, 400, 0.1


def steps_of(
    flows: dict[str, float], *, crossed: int = 150, grown: int = 210, stop: int | None = None
) -> pd.DataFrame:
    """Build a run with restarts: errors are a factor × lead, the optimizer moves at constant speed.

    With `stop`, the first flow stops at this lead of the forecast from step 100, and begins anew.
    """
    step = np.arange(STEPS + 1)
    start = np.maximum(0, (step - 1) // EVERY * EVERY)  # the row at a start is the old flows'
    lead = step - start
    base = {"step": step, "start_step": start, "status": "ok", "distance_from_start": SPEED * lead}
    sharpness = np.where(step < crossed, 1.5, 2.05)
    window = (lead % 20 == 0) & (lead > 0)
    frames = [pd.DataFrame(base | {"process": "discrete", "effective_sharpness": sharpness})]
    for place, (name, factor) in enumerate(flows.items()):
        frame = pd.DataFrame(base | {"process": name, "distance_to_discrete": factor * lead})
        frame["distance_to_mean_20"] = np.where(window, factor * lead, np.nan)
        if name == "central":
            frame["sigma_eigs"] = [[0.01 * (s >= crossed)] for s in step]
            frame["displacement_sq"] = [[0.02 * (s >= grown)] for s in step]
        if stop is not None and place == 0:
            lost = (start == 100) & (lead > stop)
            frame = frame[~lost]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def test_skill_is_what_was_put_in() -> None:
    frames = [steps_of({"central": 0.01 * f, "stable": 0.04 * f}) for f in (1.0, 1.5, 2.0)]
    table = analysis.skill(frames)
    assert set(table["phase"]) == {"before the edge", "onset", "at the edge"}
    central = table[table["flow"] == "central"]
    assert central["skill_stable"].to_numpy() == pytest.approx(0.75)
    assert central["error"].to_numpy() == pytest.approx(0.15)
    assert central["skill_persistence"].to_numpy() == pytest.approx(0.85)
    assert (central["skill_persistence_low"] < 0.85).all()
    assert central["lead"].max() == EVERY
    last = central[central["lead"] == EVERY].set_index("phase")
    # Crossed at 150, grown at 210: forecasts from 0, 50, 100; from 150, 200; and from 250 on.
    found = {phase: last.loc[phase, "n_forecasts"] for phase in last.index}
    assert found == {"before the edge": 9, "onset": 6, "at the edge": 9}
    assert (last["n_runs"] == 3).all()


def test_the_row_at_a_start_is_the_old_flows() -> None:
    table = analysis.skill([steps_of({"central": 0.01})], by=[])
    assert table["lead"].min() == 1
    assert table["skill_stable"].isna().all()  # no stable flow to compare with


def test_a_forecast_that_stops_keeps_its_last_error() -> None:
    whole = analysis.skill([steps_of({"central": 0.01, "stable": 0.04})], by=[])
    lost = analysis.skill([steps_of({"central": 0.01, "stable": 0.04}, stop=10)], by=[])
    keys = ["flow", "phase", "lead"]
    row = lost.set_index(keys).loc[("central", "before the edge", EVERY)]
    assert (row["n_forecasts"], row["n_ended"]) == (3, 1)
    assert row["error"] == pytest.approx((0.5 + 0.5 + 0.1) / (3 * SPEED * EVERY))
    assert whole["n_ended"].sum() == 0


def test_a_forecast_that_stops_at_once_is_not_left_out() -> None:
    """The flow stays where the forecast began: it is as far off as persistence there."""
    lost = analysis.skill([steps_of({"central": 0.01, "stable": 0.04}, stop=0)], by=[])
    keys = ["flow", "phase", "lead"]
    for lead in (1, EVERY):
        row = lost.set_index(keys).loc[("central", "before the edge", lead)]
        assert (row["n_forecasts"], row["n_ended"]) == (3, 1)
        assert row["error"] == pytest.approx((2 * 0.01 + SPEED) / (3 * SPEED))
        assert row["skill_stable"] == pytest.approx(1 - (2 * 0.01 + SPEED) / (3 * 0.04))


def test_between_the_ends_of_windows_no_flow_has_ended() -> None:
    given = [steps_of({"central": 0.01, "stable": 0.04})]
    table = analysis.skill(given, by=[], targets="mean_20")
    assert table["n_ended"].sum() == 0
    assert table["error"].notna().all()
    lost = analysis.skill([steps_of({"central": 0.01}, stop=0)], by=[], targets="mean_20")
    assert lost["n_ended"].sum() == 0  # of one flow nothing says where a window ended


def test_a_run_without_restarts_is_one_forecast() -> None:
    frame = steps_of({"central": 0.01, "stable": 0.04}).drop(columns="start_step")
    table = analysis.skill([frame], by=[])
    assert set(table["phase"]) == {"onset"}
    assert table["lead"].max() == STEPS
    assert table["lead"].nunique() <= 24


def test_mistakes_and_figures() -> None:
    table = analysis.skill([steps_of({"central": 0.01, "stable": 0.04})], by=[])
    ax = analysis.plot_skill(table, phase="onset")
    assert ax.lines[0].get_label() == "central flow"
    assert ax.get_title(loc="left") == "onset"
    assert analysis.plot_skill(table, reference="persistence").lines
    with pytest.raises(ValueError, match="reference must be 'stable' or 'persistence', got 'x'"):
        analysis.plot_skill(table, reference="x")
    with pytest.raises(ValueError, match="no rows of target 'half'"):
        analysis.plot_skill(table, target="half")
    with pytest.raises(ValueError, match="give the rows of one cell"):
        analysis.plot_skill(pd.concat([table, table]))
    with pytest.raises(ValueError, match=r"targets must be of .*, got 'x'"):
        analysis.skill([steps_of({"central": 0.01})], targets="x")
