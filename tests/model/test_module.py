"""Loss, rates, rotations and metrics of the classifier, against formulas and scikit-learn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor, nn

from cnmc.cli.app import compose
from cnmc.config.groups import STAGES
from cnmc.model.module import CellClassifier
from cnmc.model.optimizer import OptimizerOptions
from cnmc.model.tta import images_at_once
from cnmc.training.build import build_classifier


class FakeBatch(NamedTuple):
    images: Tensor
    labels: Tensor


class CornerNetwork(nn.Module):
    """Two learnable numbers; its logit is the difference of two opposite corner pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Parameter(torch.tensor(1.0))
        self.head = nn.Parameter(torch.tensor(0.0))

    def forward(self, images: Tensor) -> Tensor:
        return (self.body * (images[:, 0, 0, 0] - images[:, 0, -1, -1]) + self.head).unsqueeze(1)


def _classifier(
    num_rotations: int = 8, pos_weight: float = 0.466, *, fused: bool = False
) -> CellClassifier:
    return CellClassifier(
        CornerNetwork(),
        optimizer=OptimizerOptions(
            stages={"stage1": ["body"], "head": ["head"]},
            rates={"stage1": 1e-6, "head": 1e-2},
            fused=fused,
        ),
        pos_weight=pos_weight,
        num_rotations=num_rotations,
    )


def _batch(size: int, seed: int = 0) -> FakeBatch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (size, 9, 9, 3), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 2, (size,), generator=generator).float()
    return FakeBatch(images, labels)


def test_loss_is_the_papers_formula() -> None:
    logits, labels, weight = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([1.0, 0.0, 1.0]), 0.466
    p = 1 / (1 + np.exp(-logits.numpy().astype(np.float64)))
    y = labels.numpy()
    by_hand = np.mean(-(weight * y * np.log(p) + (1 - y) * np.log(1 - p)))
    loss = _classifier(pos_weight=weight).loss(logits, labels)
    assert float(loss) == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize(("fused", "given"), [(True, True), (False, None)])
def test_pytorch_chooses_the_loop_of_an_optimizer_that_is_not_fused(
    fused: bool, given: bool | None
) -> None:
    """False would also deselect the fast loop on a GPU."""
    optimizer = _classifier(fused=fused).configure_optimizers()["optimizer"]
    assert optimizer.defaults["fused"] is given
    assert optimizer.defaults["foreach"] is None


def test_the_input_is_in_0_to_1_without_normalization() -> None:
    images = torch.zeros(1, 9, 9, 3, dtype=torch.uint8)
    images[0, 0, 0, 0] = 255
    images[0, -1, -1, 0] = 51
    assert _classifier()(images).item() == pytest.approx(1.0 - 0.2)


def test_rotations_rotate_the_image_and_the_first_is_the_original() -> None:
    batch = _batch(5)
    module = _classifier()
    logits = module.rotation_logits(batch.images)
    assert logits.shape == (5, 8)
    torch.testing.assert_close(logits[:, 0], module(batch.images))
    # Half a turn exchanges the corners, and with them the sign.
    torch.testing.assert_close(logits[:, 4], -logits[:, 0])


@pytest.mark.parametrize("num_rotations", [1, 8])
def test_metrics_equal_scikit_learn(num_rotations: int) -> None:
    module = _classifier(num_rotations)
    module.network.head.data.fill_(0.05)  # type: ignore[operator]
    logged: dict[str, float] = {}
    module.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[method-assign]
    batches = [_batch(17, seed) for seed in range(3)]
    with torch.no_grad():
        rotations = torch.cat([module.validation_step(batch, 0) for batch in batches])
    module.on_validation_epoch_end()
    labels = torch.cat([batch.labels for batch in batches])
    logits = rotations.mean(dim=1)
    y, decided = labels.numpy(), (logits > 0).numpy()
    expected = {
        "val/accuracy": sk.accuracy_score(y, decided),
        "val/sensitivity": sk.recall_score(y, decided, pos_label=1),
        "val/specificity": sk.recall_score(y, decided, pos_label=0),
        "val/f1": sk.f1_score(y, decided, average="weighted"),
        "val/precision": sk.precision_score(y, decided, average="weighted", zero_division=0),
        "val/recall": sk.recall_score(y, decided, average="weighted"),
        "val/auroc": sk.roc_auc_score(y, logits.numpy()),
        "val/f1_norot": sk.f1_score(y, (rotations[:, 0] > 0).numpy(), average="weighted"),
        "val/loss": float(module.loss(logits, labels)),
    }
    assert logged == pytest.approx(expected, abs=1e-6)


@pytest.mark.filterwarnings("ignore:No negative samples")
def test_metrics_are_reset_and_undefined_ones_are_nan() -> None:
    module = _classifier(1)
    logged: dict[str, float] = {}
    module.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[method-assign]
    batch = _batch(12)
    with torch.no_grad():
        module.validation_step(batch, 0)
        module.on_validation_epoch_end()
        only_all = FakeBatch(batch.images, torch.ones(12))
        rotations = module.validation_step(only_all, 0)
        module.on_validation_epoch_end()
    assert logged["val/accuracy"] == pytest.approx(float((rotations[:, 0] > 0).float().mean()))
    assert np.isnan(logged["val/specificity"])
    assert np.isnan(logged["val/auroc"])
    assert not np.isnan(logged["val/sensitivity"])


def _rates(overrides: list[str], epochs: int) -> list[dict[str, float]]:
    config, _ = compose([*overrides, "model.pretrained=false"])
    module = build_classifier(config, pos_weight=1.0)
    configured = module.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    assert configured["lr_scheduler"].get("interval", "epoch") == "epoch"
    read = []
    for _ in range(epochs):
        read.append({group["name"]: group["lr"] for group in optimizer.param_groups})
        optimizer.step()
        scheduler.step()
    return read


def test_the_papers_three_rates_fall_by_ten_every_two_epochs() -> None:
    """Section 4.1, read back from the optimizer of the paper's network."""
    start = [1e-6, 1e-6, 1e-4, 1e-4, 1e-4, 1e-2]
    for epoch, rates in enumerate(_rates([], epochs=6)):
        base = (1.0, 1.0, 0.1, 0.1, 0.01, 0.01)[epoch]
        expected = {stage: base * rate for stage, rate in zip(STAGES, start, strict=True)}
        assert rates == pytest.approx(expected, rel=1e-12)


def test_nospeclr_has_one_rate_and_the_same_schedule() -> None:
    rates = _rates(["experiment=nospeclr", "model=test_resnet"], epochs=6)
    bases = (1.0, 1.0, 0.1, 0.1, 0.01, 0.01)
    for base, row in zip(bases, rates, strict=True):
        assert set(row) <= set(STAGES)
        assert list(row.values()) == pytest.approx([1e-4 * base] * len(row))


def test_the_optimizer_is_adam_with_defaults_and_has_every_parameter_once() -> None:
    config, _ = compose(["model.pretrained=false"])
    module = build_classifier(config, pos_weight=1.0)
    optimizer = module.configure_optimizers()["optimizer"]
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    assert optimizer.defaults["weight_decay"] == 0.0
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len({id(p) for p in held}) == len(held) == len(list(module.parameters()))
    assert sum(p.numel() for p in held) == 25_512_945


def test_dropout_depends_only_on_seed_and_epoch() -> None:
    module = _classifier()
    drawn = []
    for _ in range(2):
        torch.rand(3)
        module.on_train_epoch_start()
        drawn.append(torch.rand(4))
    assert torch.equal(drawn[0], drawn[1])
    module.seed = 1
    module.on_train_epoch_start()
    assert not torch.equal(torch.rand(4), drawn[0])


@pytest.mark.parametrize(
    ("compiled", "sizes"), [(None, [4, 4, 3]), (3, [3, 3, 3, 3]), (32, [4, 4, 4])]
)
def test_a_cpu_evaluates_small_batches_and_a_compiled_network_full_ones(
    monkeypatch: pytest.MonkeyPatch, compiled: int | None, sizes: list[int]
) -> None:
    batch = _batch(11)
    expected = _classifier().rotation_logits(batch.images)
    monkeypatch.setattr("cnmc.model.module.images_at_once", lambda _: 4)
    module = _classifier()
    module.compiled_batch = compiled
    seen: list[int] = []
    module.network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    torch.testing.assert_close(module.rotation_logits(batch.images), expected)
    assert seen == [size for size in sizes for _ in range(8)]


@pytest.mark.parametrize(("size", "number"), [(300, 4), (299, 4), (160, 8), (64, 64), (900, 1)])
def test_a_cpu_evaluates_fewer_large_images_at_a_time(size: int, number: int) -> None:
    assert images_at_once(size) == number
