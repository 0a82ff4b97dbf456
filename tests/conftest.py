"""Shared fixtures: where real cells lie, and a tiny generated study that trains in seconds."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from cnmc import signals

if TYPE_CHECKING:
    from tests.study.forks import Forks

# As in a command: albumentations would look for a newer version over the network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# The machine's cores are shared with the other tests; the networks here are tiny.
torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("CNMC_SHARED", ROOT.parent / "shared"))


_LONGEST = (
    "test_launchers.py",
    "test_survival.py",
    "test_backends.py",
    "test_benchmark.py",
    "test_commands.py",
    "test_train.py",
)
"""The files that take minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: what is left at the end is short, and all workers share it."""
    order = {name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def _required(path: Path, what: str) -> Path:
    if not path.exists():
        pytest.skip(f"{what} not found at {path}")
    return path


@pytest.fixture(scope="session")
def real_data_root() -> Path:
    """The folder of real cells (CNMC_REAL_DATA, or data/cnmc-real of the checkout)."""
    root = Path(os.environ.get("CNMC_REAL_DATA", ROOT / "data" / "cnmc-real"))
    return _required(root / "C-NMC_training_data", "real cells").parent


@pytest.fixture(scope="session")
def real_train_files() -> Path:
    """The list of all file names of the release's training part."""
    return _required(SHARED / "cnmc" / "train-files.csv", "list of the training files")


@pytest.fixture(scope="session")
def real_prelim_labels() -> Path:
    """The release's label file of the preliminary test part."""
    name = "C-NMC_test_prelim_phase_data_labels.csv"
    return _required(SHARED / "cnmc" / name, "label file of the preliminary part")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """ImageNet weights of tf_efficientnet_lite0."""
    name = "tf_efficientnet_lite0_in1k.safetensors"
    return _required(SHARED / "weights" / name, "EfficientNet-lite0 weights")


@pytest.fixture(scope="session")
def commands() -> Iterator[Forks]:
    """Commands as real processes that start at once; one server for all tests of a worker."""
    # It imports this file.
    from tests.study.forks import forks  # noqa: PLC0415

    with forks() as server:
        yield server


@pytest.fixture
def own_signals() -> Iterator[None]:
    """A test that sends itself signals; the others get theirs as before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    signals.listen()  # forgets those that came
    for number, handler in before.items():
        signal.signal(number, handler)


TINY = (
    "data=synthetic",
    "data.synthetic.image_size=48",
    "data.synthetic.train_subjects_all=4",
    "data.synthetic.train_subjects_hem=4",
    "data.synthetic.train_cells_all=24",
    "data.synthetic.train_cells_hem=16",
    "data.synthetic.prelim_subjects_all=2",
    "data.synthetic.prelim_subjects_hem=2",
    "data.synthetic.prelim_cells_all=10",
    "data.synthetic.prelim_cells_hem=8",
    "data.synthetic.final_subjects_all=0",
    "data.synthetic.final_subjects_hem=0",
    "data.synthetic.final_cells_all=0",
    "data.synthetic.final_cells_hem=0",
    "data.crop=40",
    "data.batch_size=8",
    "data.num_workers=0",
    "model=test_resnet",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "trainer.num_threads=1",
    "logger=none",
)
"""Overrides of a study that trains in seconds: 40 + 18 generated cells, timm's test network."""


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the tiny study's data, shared by all tests so that it is generated once."""
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture
def tiny(tiny_data: Path, tmp_path: Path) -> list[str]:
    """Overrides of the tiny study; its run folders lie below the test's own folder."""
    return [
        *TINY,
        f"data.root={tiny_data / 'data'}",
        f"data.work_dir={tiny_data / 'work'}",
        f"run.root={tmp_path / 'runs'}",
    ]
