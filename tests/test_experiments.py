"""Every experiment composes, and an ablation changes only the keys that it names."""

from __future__ import annotations

from typing import Any

import pytest

from cnmc.cli.app import compose
from cnmc.config import CONFIG_DIR
from cnmc.config.groups import STAGES
from cnmc.runs.identity import flatten

EXPERIMENTS = sorted(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml"))


def _flat(*overrides: str) -> dict[str, Any]:
    return flatten(compose(list(overrides))[1])


def _differences(experiment: str) -> dict[str, tuple[Any, Any]]:
    one, other = _flat(), _flat(f"experiment={experiment}")
    return {
        key: (one.get(key), other.get(key))
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key)
    }


def test_default_is_the_recipe_of_the_paper() -> None:
    """The recipe of section 4.1 and of the paper's published code, value by value."""
    flat = _flat()
    expected = {
        "experiment": "proposal",
        "data.crop": 300,
        "data.resize": None,
        "data.batch_size": 16,
        "split.kind": "official",
        "augment.hflip": 0.5,
        "augment.vflip": 0.5,
        "augment.rotate": 360.0,
        "augment.translate": 0.2,
        "augment.scale": 0.0,
        "augment.color": 0.0,
        "augment.device": False,
        "model.name": "legacy_seresnext50_32x4d",
        "model.pretrained": True,
        "model.drop_rate": 0.0,
        "model.normalize": False,
        "optimizer.lr.stage1": 1e-6,
        "optimizer.lr.stage2": 1e-6,
        "optimizer.lr.stage3": 1e-4,
        "optimizer.lr.stage4": 1e-4,
        "optimizer.lr.stage5": 1e-4,
        "optimizer.lr.head": 1e-2,
        "optimizer.decay_every": 2,
        "optimizer.decay_factor": 0.1,
        "optimizer.weight_decay": 0.0,
        "tta.num_rotations": 8,
        "trainer.max_epochs": 6,
        "trainer.precision": "32-true",
    }
    assert {key: flat[key] for key in expected} == expected


def test_norot_changes_only_the_rotations() -> None:
    assert _differences("norot") == {
        "experiment": ("proposal", "norot"),
        "tta.num_rotations": (8, 1),
    }


def test_nospeclr_changes_only_the_learning_rates() -> None:
    rates = {f"optimizer.lr.{stage}": (_flat()[f"optimizer.lr.{stage}"], None) for stage in STAGES}
    assert _differences("nospeclr") == {
        "experiment": ("proposal", "nospeclr"),
        "optimizer.lr": (None, 1e-4),
        **rates,
    }


def test_nospeclr_accepts_a_rate_on_the_command_line() -> None:
    assert _flat("experiment=nospeclr", "optimizer.lr=1e-3")["optimizer.lr"] == 1e-3


def test_stages_4_and_5_use_the_rate_of_stage_3_unless_set() -> None:
    flat = _flat("optimizer.lr.stage3=5e-4", "optimizer.lr.stage5=7e-4")
    assert [flat[f"optimizer.lr.stage{n}"] for n in (3, 4, 5)] == [5e-4, 5e-4, 7e-4]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_composes_and_documents_its_claim(experiment: str) -> None:
    config, _ = compose([f"experiment={experiment}"])
    assert config.experiment == experiment
    head = (CONFIG_DIR / "experiment" / f"{experiment}.yaml").read_text()
    assert all(word in head for word in ("# Claim", "# Command", "# Duration", "# Expected"))


@pytest.mark.parametrize(
    "choice",
    sorted(
        f"{path.parent.name}={path.stem}"
        for path in CONFIG_DIR.glob("*/*.yaml")
        if path.parent.name != "experiment"
    ),
)
def test_every_option_of_every_group_composes(choice: str) -> None:
    compose([choice])


def test_real_lite_flat_changes_only_the_learning_rates() -> None:
    one, other = _flat("experiment=real_lite"), _flat("experiment=real_lite_flat")
    changed = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
    assert changed == {"experiment", "optimizer.lr", *(f"optimizer.lr.{s}" for s in STAGES)}
    assert other["optimizer.decay_every"] == 1


def test_real_lite_fast_changes_only_the_speed_options() -> None:
    one, other = _flat("experiment=real_lite"), _flat("experiment=real_lite_fast")
    changed = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
    presets = {"trainer.precision", "trainer.channels_last", "trainer.compile", "optimizer.fused"}
    assert changed == {"experiment", *presets}
