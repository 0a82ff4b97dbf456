"""What the paper describes, done the usual way: the baselines that the stages are measured against.

Written from sections 2 and 4.1 of the paper with the libraries that one would take: images are
opened anew in every epoch, cropped, flipped, turned and shifted by torchvision, and travel to the
device as floats; for an evaluation, eight turned copies of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

NUM_ROTATIONS = 8


class FileDataset(Dataset[Tensor]):
    """Cells that are opened, cropped and augmented each time.

    Args:
        files: The images.
        crop: Side of the central crop in pixels.
        resize: Side that the crop is then brought to; None leaves it.
        translate: Shifts are uniform over plus and minus this share of each side.
    """

    def __init__(
        self, files: Sequence[Path], *, crop: int, resize: int | None, translate: float = 0.2
    ) -> None:
        self.files = list(files)
        self.transform = transforms.Compose(
            [
                _cropped(crop, resize),
                transforms.RandomHorizontalFlip(),
                transforms.RandomVerticalFlip(),
                transforms.RandomAffine(degrees=(0, 360), translate=(translate, translate)),
                transforms.ToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position: int) -> Tensor:
        with Image.open(self.files[position]) as image:
            changed: Tensor = self.transform(image.convert("RGB"))
        return changed


class RotatedDataset(Dataset[Tensor]):
    """Cells as the eight float views of an evaluation: 8 x 3 x S x S."""

    def __init__(self, files: Sequence[Path], *, crop: int, resize: int | None) -> None:
        self.files = list(files)
        self.crop = _cropped(crop, resize)
        self.to_tensor = transforms.ToTensor()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position: int) -> Tensor:
        with Image.open(self.files[position]) as image:
            cropped = self.crop(image.convert("RGB"))
        angles = [turn * 360 / NUM_ROTATIONS for turn in range(NUM_ROTATIONS)]
        return torch.stack([self.to_tensor(cropped.rotate(angle)) for angle in angles])


def _cropped(crop: int, resize: int | None) -> transforms.Compose:
    size = [] if resize is None else [transforms.Resize((resize, resize))]
    return transforms.Compose([transforms.CenterCrop(crop), *size])


def batches_of(dataset: Dataset[Tensor], batch_size: int, num_workers: int) -> DataLoader[Tensor]:
    """Return shuffled whole batches of a dataset."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )


def train_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    pos_weight: Tensor,
) -> None:
    """Do one step of the recipe in 32 bits."""
    logits = network(images).squeeze(1)
    loss = nn.functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=pos_weight)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def mean_logits(network: nn.Module, views: Any) -> Tensor:
    """Return the mean logit of each cell from its views: B x 8 x 3 x S x S to B."""
    with torch.no_grad():
        logits: Tensor = network(views.flatten(0, 1)).reshape(len(views), -1).mean(dim=1)
    return logits
