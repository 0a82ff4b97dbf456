"""Reading a study: groups, gaps, and what a damaged folder costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cnmc.analysis.loading import load_study, read_study
from cnmc.analysis.metrics import evaluate, mean_logits
from cnmc.analysis.results import missing_seeds, run_table, with_reference
from cnmc.analysis.summary import summarise
from cnmc.errors import CnmcError
from cnmc.runs.folder import PREDICTIONS, RunFolder
from tests.studies import write_run


def test_logits_are_those_of_the_file_in_the_order_of_the_cells(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "proposal", 0)
    table = folder.read_predictions()
    assert table is not None
    shuffled = table.sample(frac=1.0, random_state=0)
    shuffled.to_parquet(folder.path / PREDICTIONS)
    (run,) = load_study([folder]).groups[0].runs
    rows = table[table["epoch"] == 2].sort_values("cell_id")
    assert run.reported.cells["cell_id"].tolist() == rows["cell_id"].tolist()
    position = run.reported.epochs.tolist().index(2)
    assert run.reported.mean()[position] == pytest.approx(mean_logits(rows))
    upright = run.reported.mean(rotations=False)[position]
    assert upright == pytest.approx(rows["logit_0"].to_numpy())


def test_the_table_of_runs_is_that_of_the_stored_logits(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "proposal", 0)
    info, table = folder.read_info(), folder.read_predictions()
    assert info is not None
    assert table is not None
    best = table[table["epoch"] == info.best_epoch]
    row = run_table(load_study([folder]).groups).iloc[0]
    for name, value in evaluate(best["label"].to_numpy(), mean_logits(best)).items():
        assert row[name] == pytest.approx(value)


def test_an_honest_run_reports_its_test_cells_and_keeps_those_that_chose(tmp_path: Path) -> None:
    write_run(tmp_path, "proposal", 0, protocol="honest")
    (group,) = read_study(tmp_path).groups
    run = group.runs[0]
    assert set(group.cells["subject"]) == {"53", "54", "55", "57", "H25", "H26", "H27", "H28"}
    assert set(run.choosing.cells["subject"]) == {"1", "2", "H1", "H2"}
    assert run.reported.epochs.tolist() == [run.best_epoch]
    assert run.choosing.epochs.tolist() == [0, 1, 2, 3]


def test_proposal_comes_first_or_what_is_asked_for(tmp_path: Path) -> None:
    for name in ("norot", "proposal", "nospeclr"):
        write_run(tmp_path, name, 0)
    study = read_study(tmp_path)
    assert [group.label for group in study.groups] == ["proposal", "norot", "nospeclr"]
    other = with_reference(study, "nospeclr")
    assert [group.label for group in other.groups] == ["nospeclr", "proposal", "norot"]
    with pytest.raises(CnmcError, match=r"reference=x: no such group.*'proposal', 'norot'"):
        with_reference(study, "x")


def test_a_run_on_other_cells_than_its_group_is_named(tmp_path: Path) -> None:
    write_run(tmp_path, "proposal", 0)
    odd = write_run(tmp_path, "proposal", 1)
    table = odd.read_predictions()
    assert table is not None
    table.assign(label=1 - table["label"]).to_parquet(odd.path / PREDICTIONS)
    study = read_study(tmp_path)
    assert len(study.groups[0].runs) == 1
    assert "seed=1: other cells than" in study.gaps[0]


def test_seeds_that_other_groups_have_are_missed(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "proposal", seed)
    write_run(tmp_path, "norot", 1, num_views=1)
    write_run(tmp_path, "elsewhere", 9, manifest_fingerprint="f" * 64)
    assert missing_seeds(read_study(tmp_path)) == {"norot": [0, 2]}


def test_an_empty_folder_is_an_empty_study(tmp_path: Path) -> None:
    assert not read_study(tmp_path).groups
    assert not load_study([RunFolder(tmp_path / "a" / "b")]).groups


def test_the_choosing_cells_name_the_best_run_not_the_reported_ones(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, "proposal", seed, protocol="honest") for seed in range(6)]
    (group,) = load_study(folders).groups
    chosen = [run.info.best_f1 or 0.0 for run in group.runs]
    reported = run_table([group]).query("view == 'rotations'")["f1"]
    assert group.best == int(np.argmax(chosen))
    assert group.best != int(reported.argmax())
    name = group.runs[group.best].info.name
    assert f"best run of {group.label}: {name}," in summarise(load_study(folders))
