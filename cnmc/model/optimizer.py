"""Adam with one learning rate for each stage of a network (section 4.1 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from cnmc.errors import CnmcError


@dataclass(frozen=True)
class OptimizerOptions:
    """Options of the optimizer."""

    stages: Mapping[str, Sequence[str]]
    """Name patterns of the parameters of each stage, in the order in which they are tried."""
    rates: Mapping[str, float]
    """Learning rate of each stage before the first decay."""
    decay_every: int = 2
    """Epochs between two decays of all rates."""
    decay_factor: float = 0.1
    weight_decay: float = 0.0
    fused: bool = False


def parameter_groups(
    network: nn.Module, stages: Mapping[str, Sequence[str]], rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Divide the parameters of a network into one optimizer group for each stage.

    Patterns are shell wildcards over parameter names; the first match decides. A stage without
    patterns has no group.

    Raises:
        CnmcError: A pattern decides for no parameter, no pattern matches a parameter, or a stage
            has no rate. Each would silently train a part of the network at the wrong rate.
    """
    order = [(stage, pattern) for stage, patterns in stages.items() for pattern in patterns]
    members: dict[str, list[nn.Parameter]] = {stage: [] for stage in stages}
    used, unmatched = set(), []
    for name, parameter in network.named_parameters():
        match = next((item for item in order if fnmatchcase(name, item[1])), None)
        if match is None:
            unmatched.append(name)
        else:
            members[match[0]].append(parameter)
            used.add(match)
    for stage, pattern in order:
        if (stage, pattern) not in used:
            raise CnmcError(
                f'model.stages.{stage}: the pattern "{pattern}" decides for no parameter (it '
                "matches none, or only what earlier patterns match); correct or remove it"
            )
        if stage not in rates:
            raise CnmcError(f"optimizer.lr.{stage}: missing, but the stage has parameters")
    if unmatched:
        names = ", ".join(unmatched[:5]) + (", ..." if len(unmatched) > 5 else "")
        raise CnmcError(f"model.stages: no pattern matches {names}; add a pattern")
    return [
        {"name": stage, "params": parameters, "lr": rates[stage]}
        for stage, parameters in members.items()
        if parameters
    ]


def build_optimizer(groups: Sequence[dict[str, Any]], options: OptimizerOptions) -> dict[str, Any]:
    """Return Adam over parameter groups and its schedule, in the form that Lightning expects."""
    # ``fused=None`` leaves the choice to PyTorch; False would select the slow loop on a GPU.
    optimizer = torch.optim.Adam(
        groups, weight_decay=options.weight_decay, fused=options.fused or None
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda epoch: options.decay_factor ** (epoch // options.decay_every)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler}}
