"""The work that the paper describes, written with the usual libraries: the baselines.

Sections 2 and 4.1 of the paper: image files are opened in every epoch, cropped, flipped, rotated
and shifted by torchvision, and travel to the device as floats; eight rotated copies of each image
are evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class ImageFiles(Dataset[Tensor]):
    """Images that are opened each time they are used.

    Args:
        files: The images.
        crop: Side of the central crop in pixels.
        resize: Side that the crop is resized to; None leaves it.
        rotated: Return the eight rotations of an image (8 x 3 x S x S floats) instead of an
            augmented image (3 x S x S floats).
    """

    def __init__(
        self, files: Sequence[Path], *, crop: int, resize: int | None, rotated: bool = False
    ) -> None:
        self.files = list(files)
        self.rotated = rotated
        size = [] if resize is None else [transforms.Resize((resize, resize))]
        self.crop = transforms.Compose([transforms.CenterCrop(crop), *size])
        self.augment = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomVerticalFlip(),
                transforms.RandomAffine(degrees=(0, 360), translate=(0.2, 0.2)),
            ]
        )
        self.to_tensor = transforms.ToTensor()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position: int) -> Tensor:
        with Image.open(self.files[position]) as image:
            cropped = self.crop(image.convert("RGB"))
        if self.rotated:
            return torch.stack([self.to_tensor(cropped.rotate(45 * turn)) for turn in range(8)])
        augmented: Tensor = self.to_tensor(self.augment(cropped))
        return augmented


def batches_of(dataset: Dataset[Tensor], batch_size: int, num_workers: int) -> DataLoader[Tensor]:
    """Return shuffled batches of a dataset, without the last partial one."""
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
    """Train one batch in 32 bits."""
    logits = network(images).squeeze(1)
    loss = nn.functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=pos_weight)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def mean_logits(network: nn.Module, views: Tensor) -> Tensor:
    """Return the mean logit of each cell: B x 8 x 3 x S x S to B."""
    with torch.no_grad():
        logits: Tensor = network(views.flatten(0, 1)).reshape(len(views), -1).mean(dim=1)
    return logits
