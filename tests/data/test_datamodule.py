"""What reaches the training loop: whole batches, a new order and new draws every epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from cnmc.cli.app import compose
from cnmc.data.datamodule import CellBatch, CellDataModule, EpochSampler
from cnmc.data.store import CellStore, open_cells
from cnmc.errors import CnmcError


@pytest.fixture
def store(tiny: list[str]) -> CellStore:
    config, _ = compose(tiny)
    return open_cells(config.data, config.split)


def _module(store: CellStore, tiny: list[str], *overrides: str) -> CellDataModule:
    config, _ = compose([*tiny, *overrides])
    return CellDataModule(config, store)


def _epoch(data: CellDataModule, epoch: int) -> CellBatch:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    batches = [data.on_after_batch_transfer(batch, 0) for batch in loader]
    assert all(batch.sources is None for batch in batches)
    parts = zip(*((b.images, b.labels, b.positions) for b in batches), strict=True)
    return CellBatch(*(torch.cat(part) for part in parts))


def test_the_last_partial_batch_is_dropped(store: CellStore, tiny: list[str]) -> None:
    data = _module(store, tiny, "data.batch_size=16")
    assert [len(batch.labels) for batch in data.train_dataloader()] == [16, 16]  # of 40


def test_images_travel_as_bytes_and_belong_to_their_labels(
    store: CellStore, tiny: list[str]
) -> None:
    data = _module(store, tiny)
    table = data.evaluated["val"]
    batches = list(data.val_dataloader())
    batch = batches[0]
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (18, 40, 40, 3)
    for position, image, label in zip(batch.positions, batch.images, batch.labels, strict=True):
        row = table.iloc[int(position)]
        assert row["label"] == int(label)
        expected = store.cache.images[store.cache.rows[row["cell_id"]]]
        np.testing.assert_array_equal(image.numpy(), expected)


def test_every_epoch_has_another_order_and_other_draws(store: CellStore, tiny: list[str]) -> None:
    data = _module(store, tiny)
    first, again, second = _epoch(data, 0), _epoch(data, 0), _epoch(data, 1)
    assert torch.equal(first.positions, again.positions)
    assert torch.equal(first.images, again.images)
    assert sorted(first.positions.tolist()) == sorted(second.positions.tolist())
    assert not torch.equal(first.positions, second.positions)
    by_cell = [batch.images[batch.positions.argsort()] for batch in (first, second)]
    same = (by_cell[0] == by_cell[1]).flatten(1).all(dim=1)
    assert int(same.sum()) == 0


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_device_makes_the_pixels_that_the_host_would(
    store: CellStore, tiny: list[str], num_workers: int
) -> None:
    host = _module(store, tiny, "augment.scale=0.2")
    device = _module(
        store, tiny, "augment.scale=0.2", "augment.device=true", f"data.num_workers={num_workers}"
    )
    for epoch in range(2):
        for one, other in zip(_epoch(host, epoch)[:3], _epoch(device, epoch)[:3], strict=True):
            assert torch.equal(one, other)


def test_the_device_is_sent_cells_as_they_are_and_where_their_pixels_go(
    store: CellStore, tiny: list[str]
) -> None:
    data = _module(store, tiny, "augment.device=true")
    ids = store.split.cells.query("role == 'train'")["cell_id"].to_list()
    batch = next(iter(data.train_dataloader()))
    rows = [store.cache.rows[ids[int(position)]] for position in batch.positions]
    np.testing.assert_array_equal(batch.images.numpy(), store.cache.images[rows])
    assert (batch.sources.dtype, batch.sources.shape) == (torch.int32, (8, 2, 80))
    moved = data.on_after_batch_transfer(batch, 0)
    assert moved.sources is None
    assert not torch.equal(moved.images, batch.images)
    # Cells that are evaluated are not changed anywhere.
    (evaluated,) = list(data.val_dataloader())
    assert data.on_after_batch_transfer(evaluated, 0) is evaluated


def test_a_batch_reaches_a_device_with_and_without_sources(
    store: CellStore, tiny: list[str]
) -> None:
    data = _module(store, tiny, "augment.device=true")
    module = pl.LightningModule()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        batch = next(iter(loader))
        sent = module.transfer_batch_to_device(batch, torch.device("meta"), 0)
        assert type(sent) is CellBatch
        moved = data.on_after_batch_transfer(sent, 0)
        assert moved.sources is None
        assert (moved.images.device.type, moved.images.shape) == ("meta", batch.images.shape)


def test_another_seed_has_another_order_and_other_draws(store: CellStore, tiny: list[str]) -> None:
    one, other = (_epoch(_module(store, tiny, f"seed={seed}"), 0) for seed in (0, 1))
    assert not torch.equal(one.positions, other.positions)
    by_cell = [batch.images[batch.positions.argsort()] for batch in (one, other)]
    assert not torch.equal(by_cell[0], by_cell[1])


class Watch(pl.LightningModule):
    """Notes the order of the cells of each epoch, and keeps a checkpoint after the first."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: dict[int, list[int]] = {}
        self.checkpoint = checkpoint

    def training_step(self, batch: CellBatch, _position: int) -> torch.Tensor:
        self.seen.setdefault(self.current_epoch, []).extend(batch.positions.tolist())
        return self.weight.sum()

    def on_train_epoch_end(self) -> None:
        if self.current_epoch == 0:
            self.trainer.save_checkpoint(self.checkpoint)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def _fit(data: CellDataModule, watch: Watch, *, resume: bool) -> dict[int, list[int]]:
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(watch, data, ckpt_path=watch.checkpoint if resume else None, weights_only=True)
    return watch.seen


@pytest.mark.parametrize("num_workers", [0, 1])
def test_lightning_sets_the_epoch_of_the_sampler(
    store: CellStore, tiny: list[str], tmp_path: Path, num_workers: int
) -> None:
    """Without it every epoch, or the first of a resumed run, would repeat epoch 0 unnoticed."""
    data = _module(store, tiny, f"data.num_workers={num_workers}")
    orders = {}
    for epoch in range(3):
        sampler = EpochSampler(40, seed=0)
        sampler.set_epoch(epoch)
        orders[epoch] = [position for _, position in sampler]
    assert len({tuple(order) for order in orders.values()}) == 3
    assert _fit(data, Watch(tmp_path / "epoch"), resume=False) == orders
    del orders[0]
    assert _fit(data, Watch(tmp_path / "epoch"), resume=True) == orders


def test_pos_weight_counts_only_training_cells(store: CellStore, tiny: list[str]) -> None:
    assert _module(store, tiny).pos_weight == pytest.approx(16 / 24)


def test_no_subject_trains_and_is_evaluated(tiny: list[str]) -> None:
    config, _ = compose([*tiny, "split=nested", "split.val_fraction=0.4"])
    store = open_cells(config.data, config.split)
    data = CellDataModule(config, store)
    subjects: dict[str, set[str]] = {
        role: set(table["subject"]) for role, table in data.evaluated.items()
    }
    cells = store.split.cells
    subjects["train"] = set(cells[cells["role"] == "train"]["subject"])
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not subjects[one] & subjects[other]


def test_a_batch_larger_than_the_training_set_is_refused(store: CellStore, tiny: list[str]) -> None:
    with pytest.raises(CnmcError, match=r"data.batch_size=41"):
        _module(store, tiny, "data.batch_size=41")
