"""Cores, runs at once, and the claim of a GPU, on a machine whose GPUs are made up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from omegaconf import OmegaConf

from cnmc.cli.app import compose
from cnmc.devices import claim_gpu, cores_per_job, num_cores, num_jobs, register_resolvers
from cnmc.errors import CnmcError
from cnmc.training.build import build_trainer
from tests.conftest import ROOT

UUIDS = ("GPU-aa", "GPU-bb", "GPU-cc")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine of three GPUs whose temporary folder is the test's own, which is returned."""
    _gpus(monkeypatch, UUIDS)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def _gpus(monkeypatch: pytest.MonkeyPatch, uuids: tuple[str, ...]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(uuids))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(uuids))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=uuids[index])
    )


def _cores(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(count)))


@pytest.mark.parametrize(
    ("cores", "gpus", "jobs", "threads"),
    [(1, 0, 1, 1), (2, 0, 2, 1), (6, 0, 2, 3), (8, 0, 2, 4), (64, 0, 16, 4), (16, 3, 3, 5)],
)
def test_runs_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, gpus: int, jobs: int, threads: int
) -> None:
    _cores(monkeypatch, cores)
    _gpus(monkeypatch, UUIDS[:gpus])
    assert num_cores() == cores
    assert num_jobs() == jobs
    assert cores_per_job() == threads


def test_runs_that_share_a_gpu_share_the_cores_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _cores(monkeypatch, 24)
    _gpus(monkeypatch, UUIDS)
    assert cores_per_job(1) == 8
    assert cores_per_job(0.25) == 2
    assert cores_per_job(0.1) == 1
    _gpus(monkeypatch, ())
    assert cores_per_job(0.25) == 4


def test_resolvers_know_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    _cores(monkeypatch, 16)
    _gpus(monkeypatch, UUIDS[:2])
    register_resolvers()
    node = OmegaConf.create(
        {
            "numbers": ["${cnmc.num_cores:}", "${cnmc.num_gpus:}", "${cnmc.num_jobs:}"],
            "share": 0.25,
            "ray": ["${cnmc.gpus_per_job:}", "${cnmc.cores_per_job:${share}}"],
            "paths": ["${cnmc.path:/a,b,c}", "${cnmc.path:/a,/b,c}"],
        }
    )
    assert node.numbers == [16, 2, 2]
    assert node.ray == [1, 2]
    assert node.paths == ["/a/b/c", "/b/c"]
    _gpus(monkeypatch, ())
    assert node.ray == [0, 4]


@pytest.mark.usefixtures("machine")
def test_every_gpu_is_claimed_once_before_any_is_claimed_twice() -> None:
    with ExitStack() as stack:
        assert [stack.enter_context(claim_gpu()) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.usefixtures("machine")
def test_a_claim_ends_with_its_run() -> None:
    with claim_gpu() as first:
        with claim_gpu() as second:
            assert (first, second) == (0, 1)
        with claim_gpu() as again:
            assert again == 1
    with pytest.raises(ValueError, match="out of memory"), claim_gpu():
        raise ValueError("out of memory")
    with claim_gpu() as free:
        assert free == 0


@pytest.mark.usefixtures("machine")
def test_commands_that_see_other_gpus_count_each_others_claims(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with claim_gpu() as whole:
        assert whole == 0
        _gpus(monkeypatch, (UUIDS[2], UUIDS[0]))
        with claim_gpu() as first, claim_gpu() as second:
            # UUIDS[0], here the second, has a run already.
            assert (first, second) == (0, 0)


def test_a_process_that_dies_claims_nothing(machine: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from types import SimpleNamespace\n"
        "import torch\n"
        "from cnmc.devices import claim_gpu\n"
        f"torch.cuda.device_count = lambda: {len(UUIDS)}\n"
        "torch.cuda.is_available = lambda: True\n"
        f"uuids = {UUIDS}\n"
        "torch.cuda.get_device_properties = lambda index: SimpleNamespace(uuid=uuids[index])\n"
        "with claim_gpu() as gpu:\n"
        "    print(gpu, flush=True)\n"
        "    time.sleep(60)\n"
    )
    environment = {**os.environ, "TMPDIR": str(machine)}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        with claim_gpu() as mine:
            assert mine == 1
        process.send_signal(signal.SIGKILL)
    with claim_gpu() as mine:
        assert mine == 0


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("accelerator", ["cpu", "mps"])
def test_a_run_on_another_device_claims_no_gpu(accelerator: str) -> None:
    with claim_gpu(accelerator) as gpu:
        assert gpu is None
    with claim_gpu("cuda") as gpu:
        assert gpu == 0


def test_a_machine_without_gpus_has_none_to_claim(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _gpus(monkeypatch, ())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with claim_gpu() as gpu:
        assert gpu is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_lock_is_named(machine: Path) -> None:
    (machine / f"cnmc-gpus-{os.getuid()}").write_text("a file")
    with pytest.raises(CnmcError, match="TMPDIR"), claim_gpu():
        pass


@pytest.mark.parametrize(
    ("accelerator", "gpu", "devices"),
    [("auto", 2, [2]), ("cuda", 0, [0]), ("gpu", 1, [1]), ("cpu", None, 1), ("auto", None, 1)],
)
def test_the_trainer_takes_the_gpu_it_is_given(
    tiny: list[str], accelerator: str, gpu: int | None, devices: object
) -> None:
    with patch("cnmc.training.build.pl.Trainer") as trainer:
        _trainer([*tiny, f"trainer.accelerator={accelerator}"], gpu)
    assert trainer.call_args.kwargs["devices"] == devices


def test_lightning_leaves_a_slurm_job_alone(
    monkeypatch: pytest.MonkeyPatch, tiny: list[str]
) -> None:
    """In a job of several tasks Lightning would refuse to train, and requeue the job itself."""
    for name, value in (("NTASKS", "4"), ("JOB_ID", "7"), ("PROCID", "3"), ("LOCALID", "3")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURM_JOB_NAME", "cnmc")
    trainer = _trainer(tiny, None)
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    connector = trainer._signal_connector  # type: ignore[attr-defined]
    connector.register_signal_handlers()
    after = {number: signal.getsignal(number) for number in before}
    connector.teardown()
    assert after == before
    assert trainer.is_global_zero  # type: ignore[attr-defined]
    assert trainer.world_size == 1  # type: ignore[attr-defined]


def _trainer(overrides: list[str], gpu: int | None) -> object:
    config, _ = compose(overrides)
    return build_trainer(config, callbacks=[], gpu=gpu)
