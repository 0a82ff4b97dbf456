"""One learning rate for each stage of a network (section 4.1 of the paper).

A stage is a list of shell wildcards over parameter names. The first pattern that matches a
parameter, in the order of the stages, decides its rate. A pattern without effect and a parameter
without a stage are errors: either would train a part of the network at a rate nobody chose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from cnmc.errors import CnmcError

Stages = Mapping[str, Sequence[str]]
"""Stage name to its patterns, in the order in which they are tried."""


def stage_of(name: str, stages: Stages) -> str:
    """Return the stage of a parameter.

    Args:
        name: Full name of the parameter, such as ``layer0.conv1.weight``.
        stages: Patterns by stage; the first that matches wins.

    Raises:
        CnmcError: No pattern matches.
    """
    match = _first_match(name, stages)
    if match is None:
        raise CnmcError(
            f"model.stages: no pattern matches the parameter {name}; add one to the stage it is of"
        )
    return match[0]


def parameter_groups(
    network: nn.Module, stages: Stages, rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Divide all parameters of a network into optimiser groups, one a stage.

    Args:
        network: The network.
        stages: Patterns by stage. A stage with an empty list has no group.
        rates: Learning rate by stage; rates of stages that do not occur are ignored.

    Returns:
        Groups for a ``torch.optim.Optimizer`` in the order of the stages, with the keys ``name``
        (the stage), ``params`` and ``lr``. Each parameter is in exactly one group.

    Raises:
        CnmcError: A pattern decides for no parameter, a parameter is matched by no pattern, or a
            stage has no rate. The message names it.
    """
    members: dict[str, list[nn.Parameter]] = {stage: [] for stage in stages}
    effective: set[tuple[str, str]] = set()
    names = []
    unmatched = []
    for name, parameter in network.named_parameters():
        names.append(name)
        match = _first_match(name, stages)
        if match is None:
            unmatched.append(name)
            continue
        effective.add(match)
        members[match[0]].append(parameter)

    for stage, patterns in stages.items():
        for pattern in patterns:
            if (stage, pattern) in effective:
                continue
            if any(fnmatchcase(name, pattern) for name in names):
                why = "has no effect, an earlier pattern takes all that it matches"
            else:
                why = "matches no parameter of the network"
            raise CnmcError(
                f'model.stages.{stage}: the pattern "{pattern}" {why}; correct or remove it '
                f"(parameter names run from {names[0]} to {names[-1]})"
            )
        if patterns and stage not in rates:
            raise CnmcError(
                f"optimizer.lr.{stage}: missing, but model.stages.{stage} has parameters; "
                f"give it a learning rate (there are rates for {', '.join(rates) or 'no stage'})"
            )
    if unmatched:
        more = f" and {len(unmatched) - 5} more" if len(unmatched) > 5 else ""
        raise CnmcError(
            f"model.stages: no pattern matches {', '.join(unmatched[:5])}{more}; "
            f"add a pattern to the stage they are of"
        )
    return [
        {"name": stage, "params": parameters, "lr": rates[stage]}
        for stage, parameters in members.items()
        if parameters
    ]


def _first_match(name: str, stages: Stages) -> tuple[str, str] | None:
    for stage, patterns in stages.items():
        for pattern in patterns:
            if fnmatchcase(name, pattern):
                return stage, pattern
    return None
