"""Which run is the best, and which runs cannot be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cnmc.analysis.ranking import Candidate, candidates_in, describe, rank
from cnmc.errors import CnmcError
from tests.studies import write_run


def _candidate(seed: int, f1: float, experiment: str = "proposal", **changes: Any) -> Candidate:
    origin = {
        "experiment": experiment,
        "name": f"seed={seed}",
        "seed": seed,
        "protocol": "paper",
        "manifest_fingerprint": "a" * 64,
        "split_fingerprint": "b" * 64,
        **changes,
    }
    return Candidate(origin, epoch=3, choosing={"f1": f1}, checkpoint=f"{seed}.ckpt")


def _order(*candidates: Candidate) -> list[str]:
    return [run.label for run in rank(candidates)]


def test_the_highest_f1_comes_first_and_the_lowest_seed_of_equals() -> None:
    runs = [_candidate(10, 0.8), _candidate(9, 0.8), _candidate(2, 0.9), _candidate(1, 0.7)]
    expected = [f"proposal/seed={seed}" for seed in (2, 9, 10, 1)]
    assert _order(*runs) == expected
    assert _order(*reversed(runs)) == expected
    twins = [_candidate(0, 0.8), _candidate(0, 0.8, "norot")]
    assert _order(*twins) == _order(*reversed(twins)) == ["norot/seed=0", "proposal/seed=0"]


def test_the_refusal_says_what_differs_where_and_how_to_choose() -> None:
    runs = [
        _candidate(0, 0.8),
        _candidate(1, 0.8),
        _candidate(0, 0.7, "norot"),
        _candidate(0, 0.9, protocol="honest", split_fingerprint="c" * 64),
    ]
    with pytest.raises(CnmcError) as told:
        rank(runs)
    message = str(told.value)
    assert "protocol paper, manifest aaaaaaaaaaaa, split bbbbbbbbbbbb: proposal (2 runs)" in message
    assert "protocol honest, manifest aaaaaaaaaaaa, split cccccccccccc: proposal" in message
    assert message.endswith("protocol=paper or protocol=honest")
    assert len(rank(runs, only={"protocol": "paper"})) == 3
    assert len(rank(runs, only={"split": "c", "manifest": None})) == 1


def test_one_key_is_offered_after_the_other() -> None:
    data, split = {"manifest_fingerprint": "d" * 64}, {"split_fingerprint": "e" * 64}
    runs = [_candidate(0, 0.8), _candidate(1, 0.8, **data), _candidate(2, 0.8, **data, **split)]
    with pytest.raises(CnmcError, match="differ in manifest and split") as told:
        rank(runs)
    assert str(told.value).endswith("choose with manifest=aaaaaaaaaaaa or manifest=dddddddddddd")
    with pytest.raises(CnmcError, match=r"choose with split=b+ or split=e+$"):
        rank(runs, only={"manifest": "d"})


def test_a_choice_that_fits_no_run_tells_what_there_is() -> None:
    with pytest.raises(CnmcError, match=r"split=f: no finished run of these cells; .* split b+: "):
        rank([_candidate(0, 0.8)], only={"split": "f"})


def test_folders_are_ranked_by_the_cells_that_chose_the_epoch(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path, "honest", seed, signal=0.8, protocol="honest")
    write_run(tmp_path, "honest", 3, protocol="honest", status="running", best_f1=1.0)
    candidates, num_left_out = candidates_in(tmp_path, "honest")
    ranked = rank(candidates)
    best, second = ranked
    assert best.f1 == pytest.approx(best.choosing["f1"])
    assert best.f1 > second.f1
    # The reported cells would have chosen the other run.
    assert best.reported["f1"] < second.reported["f1"]
    text = describe(ranked, num_left_out)
    assert f"best of 2 runs: {best.label}, seed {best.origin['seed']}" in text
    chosen, reported = text.split("on the reported cells, which chose nothing")
    assert f"{100 * best.reported['f1']:.2f}" in reported
    assert f"{100 * best.reported['f1']:.2f}" not in chosen
    mean = 50 * (best.reported["f1"] + second.reported["f1"])
    assert f"mean F1 of 2 runs: {mean:.2f} ± " in text
    assert "left out: 1 run not finished or not readable" in text


def test_the_best_of_the_papers_protocol_is_called_optimistic(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "norot", 0, num_views=1)
    for seed in range(1, 7):
        write_run(tmp_path, "proposal", seed, signal=0.4)
    candidates, _ = candidates_in(tmp_path, None)
    ranked = rank(candidates)
    text = describe(ranked, 0)
    mean = 100 * sum(run.f1 for run in candidates) / 7
    assert "the reported cells also chose this run among 7, so its F1 is optimistic" in text
    assert f"mean F1 of 7 runs: {mean:.2f} ± " in text
    assert f"checkpoint {folder.best_checkpoint}" in text
    assert "protocol paper, manifest aaaaaaaaaaaa, split bbbbbbbbbbbb" in text
    rows = [line for line in text.splitlines() if line.lstrip().startswith(tuple("123456789"))]
    assert len(rows) == 5
    # One orientation alone: nothing to average, so both F1 are one.
    best = ranked[0]
    assert best.label == "norot/seed=0"
    assert best.choosing["f1_norot"] == best.choosing["f1"]
    scores = [best.choosing[name] for name in ("f1", "f1_norot", "accuracy", "sensitivity")]
    assert rows[0].split()[2:8] == ["0", str(best.epoch), *(f"{100 * s:.2f}" for s in scores)]
