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


def test_limits_are_within_what_a_score_can_be() -> None:
    """Of two runs the limits of a mean reach far beyond both."""
    frames = [steps_of({"central": 0.001 * f, "stable": 0.04}) for f in (1.0, 40.0)]
    table = analysis.skill(frames, by=[])
    central = table[table["flow"] == "central"]
    assert (central["error_low"] == 0).all()
    for reference in ("stable", "persistence"):
        assert (central[f"skill_{reference}_high"] == 1).all()
        assert (central[f"skill_{reference}_low"] < 0).all()


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


def test_a_window_has_an_error_at_its_end_alone() -> None:
    """Carried on to the rows between it would be over a way that the optimizer came later."""
    given = [steps_of({"central": 0.01, "stable": 0.04})]
    table = analysis.skill(given, by=[], targets="mean_20")
    assert sorted(table["lead"].unique()) == [20, 40]
    assert table["n_ended"].sum() == 0
    for flow, error in (("central", 0.1), ("stable", 0.4)):
        mine = table[table["flow"] == flow]
        assert mine["error"].to_numpy() == pytest.approx(error)
        assert mine["skill_persistence"].to_numpy() == pytest.approx(1 - error)
        assert mine["skill_stable"].to_numpy() == pytest.approx(1 - error / 0.4)


@pytest.mark.parametrize("stop", [0, 10, 30])
def test_a_window_after_a_flow_ended_has_its_last_error(stop: int) -> None:
    """It has none where the flow ended before its first window did: it is as far as persistence."""
    given = [steps_of({"central": 0.01, "stable": 0.04}, stop=stop)]
    table = analysis.skill(given, by=[], targets="mean_20").set_index(["flow", "phase", "lead"])
    for lead in (20, 40):
        row = table.loc[("central", "before the edge", lead)]
        last = 0.01 * min(lead, stop // 20 * 20) if stop >= 20 else SPEED * lead
        assert row["error"] == pytest.approx((2 * 0.01 * lead + last) / (3 * SPEED * lead))
        assert (row["n_forecasts"], row["n_ended"]) == (3, int(lead > stop))
    alone = analysis.skill([steps_of({"central": 0.01}, stop=stop)], by=[], targets="mean_20")
    assert alone["n_ended"].sum() == 0  # of one flow nothing says where a window ended
    step = analysis.skill([steps_of({"central": 0.01}, stop=stop)], by=[])
    last = step.set_index(["phase", "lead"]).loc[("before the edge", EVERY)]
    assert (last["n_forecasts"], last["n_ended"]) == (3, 1)  # but its iterates are there


def test_leads_of_a_loop_are_where_one_ended() -> None:
    """Loops have other lengths in each forecast, and before the edge there is none."""
    frame = steps_of({"central": 0.01, "stable": 0.04}).drop(columns="distance_to_mean_20")
    lead = frame["step"] - frame["start_step"]
    ended = ((frame["start_step"] == 250) & (lead == 33)) | (frame["step"] == 317)
    frame["distance_to_mean_loop"] = frame["distance_to_discrete"].where(ended)
    table = analysis.skill([frame], by=[], targets="mean_loop")
    assert sorted(table["lead"].unique()) == [17, 33]
    assert set(table["phase"]) == {"at the edge"}
    assert (table["n_forecasts"] == 1).all()
    errors = table.set_index(["flow", "lead"])["error"]
    assert errors["central"].to_numpy() == pytest.approx(0.1)


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
