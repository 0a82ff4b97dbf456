"""The environment of a process that W&B's agent starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnmc.errors import CnmcError
from cnmc.tracking import agent


@pytest.fixture
def parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The parameters' file of an agent that started this process with two rates."""
    path = tmp_path / "config.yaml"
    path.write_text("wandb_version: 1\n\noptimizer.lr.head:\n  value: 0.003\nseed:\n  value: 4\n")
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(path))
    return path


@pytest.mark.usefixtures("parameters")
def test_the_parameters_and_the_run_are_read() -> None:
    assert agent.parameters() == ["optimizer.lr.head", "seed"]
    assert agent.run_id() == "r1"


@pytest.mark.parametrize("variable", ["WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"])
@pytest.mark.usefixtures("parameters")
def test_without_an_agent_there_are_none(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable)
    assert agent.parameters() is None
    assert agent.run_id() is None


@pytest.mark.parametrize("text", [None, "", "no mapping", "a: [b"])
def test_a_damaged_file_of_parameters_is_named(parameters: Path, text: str | None) -> None:
    parameters.unlink()
    if text is not None:
        parameters.write_text(text)
    with pytest.raises(CnmcError, match=f"WANDB_SWEEP_PARAM_PATH={parameters}"):
        agent.parameters()
