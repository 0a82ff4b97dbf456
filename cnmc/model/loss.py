"""The loss of training and evaluation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def weighted_bce_loss(logits: Tensor, labels: Tensor, pos_weight: float) -> Tensor:
    """Return the weighted binary cross-entropy (section 4.1 of the paper), averaged over cells.

    Args:
        logits: One logit a cell, B floats.
        labels: 0 or 1, B floats.
        pos_weight: Weight of the positive class.
    """
    # Mixed precision would round the weight, so the loss is computed in 32 bits. ``torch.full``
    # creates the weight on the device; copying it there would wait for the device.
    weight = torch.full((), pos_weight, device=logits.device)
    return binary_cross_entropy_with_logits(logits.float(), labels, pos_weight=weight)
