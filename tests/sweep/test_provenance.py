"""Where numbers come from: the commit of a launch, and processes that have other sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cflows_ray.sweep import provenance
from cflows_ray.sweep.provenance import commit_here, hash_of, sources
from cflows_ray.sweep.run_config import RunConfig


def test_the_hash_is_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.py").write_text("x = 1")
    first = hash_of(tmp_path)
    (tmp_path / "notes.txt").write_text("no code")
    assert hash_of(tmp_path) == first
    (tmp_path / "a" / "one.py").write_text("x = 2")
    second = hash_of(tmp_path)
    (tmp_path / "a" / "one.py").rename(tmp_path / "a" / "two.py")
    assert len({first, second, hash_of(tmp_path)}) == 3


@pytest.mark.parametrize(
    ("commit", "launched", "expected"),
    [
        ("abc", "same", "abc"),
        ("abc", "other", "abc-changed"),
        ("abc", None, "abc-changed"),
        ("abc-changed", "other", "abc-changed"),
        (None, "other", None),
    ],
)
def test_a_process_with_other_sources_does_not_claim_the_commit(
    commit: str | None, launched: str | None, expected: str | None
) -> None:
    assert commit_here(commit, sources() if launched == "same" else launched) == expected


def test_a_run_of_a_process_started_after_a_change_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cflows_ray.sweep.tune import PairedTrial

    run = RunConfig("saddle_2d", "gradient_descent", lr=0.1)
    opened: list[Any] = []
    trial = object.__new__(PairedTrial)
    monkeypatch.setattr(PairedTrial, "open_session", lambda _, *__, **k: opened.append(k["commit"]))
    trial._settings = {
        "runs": json.dumps([run.to_json()]),
        "sweep": "s",
        "storage": str(tmp_path),
        "chunk_steps": 10,
        "checkpoint_every": 1,
        "commit": "abc",
        "sources": sources(),
        "absolute_options": "{}",
        "pack": 1,
    }
    trial._open()
    monkeypatch.setattr(provenance, "sources", lambda: "as it is after a change")
    trial._open()
    assert opened == ["abc", "abc-changed"]
