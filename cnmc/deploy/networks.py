"""The network that screens, or several that do it together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnmc.config import EXPORT_SUFFIXES
from cnmc.deploy.opening import find_checkpoint, open_network
from cnmc.deploy.runtime import GraphInfo, Predictor
from cnmc.errors import CnmcError
from cnmc.extras import needs


@dataclass(frozen=True)
class Network:
    """A network that is ready to predict.

    Attributes:
        path: Its file.
        digest: 32 hexadecimal digits that stand for the file's content.
        predictor: What runs it.
    """

    path: Path
    digest: str
    predictor: Predictor

    @property
    def info(self) -> GraphInfo:
        """What it expects and where it comes from."""
        return self.predictor.info

    @property
    def is_checkpoint(self) -> bool:
        """Whether its file is a checkpoint of training, which Grad-CAM can look into."""
        return self.path.suffix not in EXPORT_SUFFIXES.values()

    @property
    def label(self) -> str:
        """Experiment, name and epoch of its run; its file where it is of none."""
        run = self.info.run
        if not run.get("experiment"):
            return self.path.name
        return f"{run['experiment']}/{run.get('name', '')}, epoch {self.info.epoch}"


def open_networks(paths: Sequence[Path], num_threads: int | None = None) -> tuple[Network, ...]:
    """Open networks that all take the same images.

    Args:
        paths: Checkpoints, run folders or exported networks; at least one.
        num_threads: Cores to use; None takes all.

    Raises:
        CnmcError: One cannot be opened, is given twice, or takes images of another crop or size.
    """
    networks: list[Network] = []
    for path in paths:
        predictor = open_network(path, num_threads)
        file = find_checkpoint(path)
        network = Network(file, _digest(file), predictor)
        for other in networks:
            if network.digest == other.digest:
                raise CnmcError(f"{file} and {other.path}: the same network twice; give it once")
            _refuse_difference(other, network)
        networks.append(network)
    return tuple(networks)


def best_runs(root: Path, experiment: str, top: int) -> list[Path]:
    """Return the folders of the best runs of an experiment, by the F1 that ``cnmc.best`` ranks by.

    Raises:
        CnmcError: There are too few, or they cannot be compared.
    """
    with needs("train", f"experiment={experiment}: ranking its runs"):
        from cnmc.analysis.ranking import candidates_in, rank  # noqa: PLC0415 - pandas

    candidates, num_left_out = candidates_in(root, experiment)
    try:
        runs = rank(candidates, num_left_out=num_left_out).runs
    except CnmcError as error:
        raise CnmcError(
            f"experiment={experiment}: {error} (keys of python -m cnmc.best, which names a "
            "checkpoint that predict takes as checkpoint=PATH)"
        ) from error
    if len(runs) < top:
        raise CnmcError(
            f"top={top}: experiment {experiment} has {len(runs)} finished below {root}; "
            f"top={len(runs)} takes all"
        )
    return [run.folder for run in runs[:top] if run.folder is not None]


def _digest(file: Path) -> str:
    content = hashlib.blake2b(digest_size=16)
    # OpenVINO keeps the numbers beside the .xml.
    for part in (file, file.with_suffix(".bin")) if file.suffix == ".xml" else (file,):
        content.update(part.read_bytes())
    return content.hexdigest()


def _refuse_difference(one: Network, other: Network) -> None:
    def takes(network: Network) -> str:
        info = network.info
        return f"crop {info.crop}, resize {info.resize or 'none'}"

    if takes(one) != takes(other):
        raise CnmcError(
            f"checkpoint: {one.path} takes images of {takes(one)}, and {other.path} of "
            f"{takes(other)}; the networks of an ensemble must take the same"
        )
