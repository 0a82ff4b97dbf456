"""The baselines: the work that the paper describes, written with the usual libraries.

Sections 2 and 4.1 of the paper: image files are opened in every epoch, cropped, flipped, rotated
and shifted by torchvision, and sent to the device as floats; eight rotated copies of each image
are evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class ImageFiles(Dataset[Tensor]):
    """Images that are opened each time they are used.

    An item is an augmented image (3 x S x S floats), or the eight rotations of an image
    (8 x 3 x S x S floats) if ``rotated`` is true.
    """

    def __init__(
        self, files: Sequence[Path], *, crop: int, resize: int | None, rotated: bool
    ) -> None:
        self.files = list(files)
        self.rotated = rotated
        resized = transforms.Resize((resize or crop, resize or crop))
        self.crop = transforms.Compose([transforms.CenterCrop(crop), resized])
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


def train_steps(network: nn.Module, loader: DataLoader[Tensor]) -> Callable[[], None]:
    """Return a function that trains a network in 32 bits with the next batch of a loader."""
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    weight = torch.tensor(0.5, device=device)
    batches = (batch for _ in iter(int, 1) for batch in loader)

    def step() -> None:
        logits = network(next(batches).to(device)).squeeze(1)
        labels = torch.arange(len(logits), device=device).remainder(2).float()
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step
