"""Open the network that screens, or the networks of an ensemble."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnmc.deploy.exported import GraphInfo
from cnmc.deploy.runtime import Predictor, open_exported
from cnmc.errors import CnmcError
from cnmc.extras import needs

_BEST = Path("checkpoints") / "best.ckpt"
_EXPORTED = (".onnx", ".xml")


@dataclass(frozen=True)
class Network:
    """A file with a network that is ready to predict."""

    path: Path
    digest: str
    """32 hexadecimal digits of the file's content."""
    predictor: Predictor

    @property
    def info(self) -> GraphInfo:
        """Its description."""
        return self.predictor.info

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is a checkpoint of training, which Grad-CAM needs."""
        return self.path.suffix not in _EXPORTED

    @property
    def label(self) -> str:
        """Experiment, name and epoch of its run; without a run, the name of its file."""
        run = self.info.run
        if not run.get("experiment"):
            return self.path.name
        return f"{run['experiment']}/{run.get('name', '')}, epoch {self.info.epoch}"


def find_checkpoint(path: Path) -> Path:
    """Return the file of a network; for a run folder, its best checkpoint.

    Raises:
        CnmcError: There is no such file.
    """
    file = path / _BEST if path.is_dir() else path
    if not file.is_file():
        raise CnmcError(
            f"{file}: no such file; give a run folder, a checkpoint, or a file of python -m "
            "cnmc.export"
        )
    return file


def open_network(path: Path, num_threads: int | None = None) -> Network:
    """Open a trained network for prediction on the CPU.

    A checkpoint is evaluated as in training, so its logits are those of the run folder. No code
    in a file is executed.

    Args:
        path: A checkpoint, a run folder (its best checkpoint is used), or an exported network.
        num_threads: Cores to use; None uses all.

    Raises:
        CnmcError: The file is missing, damaged or of another kind, or a package is missing.
    """
    file = find_checkpoint(path)
    digest = hashlib.blake2b(file.read_bytes(), digest_size=16)
    if file.suffix == ".xml" and file.with_suffix(".bin").is_file():
        digest.update(file.with_suffix(".bin").read_bytes())  # the weights
    if file.suffix in _EXPORTED:
        predictor = open_exported(file, num_threads)
    else:
        with needs("train", f"{path}: a checkpoint"):
            from cnmc.deploy.backends import eager  # noqa: PLC0415 (torch)
            from cnmc.deploy.graph import read_trained  # noqa: PLC0415
        predictor = eager(read_trained(file).graph, num_threads)
    return Network(file, digest.hexdigest(), predictor)


def open_networks(paths: Sequence[Path], num_threads: int | None = None) -> list[Network]:
    """Open networks that take the same images; see :func:`open_network`.

    Raises:
        CnmcError: One cannot be opened, is given twice, or takes other images than the first.
    """
    networks: list[Network] = []
    for network in (open_network(path, num_threads) for path in paths):
        for other in networks:
            if network.digest == other.digest:
                raise CnmcError(f"{network.path} and {other.path}: the same network; give it once")
            one, two = other.info, network.info
            if (one.crop, one.resize) != (two.crop, two.resize):
                raise CnmcError(
                    f"checkpoint: {other.path} takes images of crop {one.crop}, resize "
                    f"{one.resize}, but {network.path} of crop {two.crop}, resize {two.resize}; "
                    "the networks of an ensemble must take the same images"
                )
        networks.append(network)
    return networks


def best_runs(root: Path, experiment: str, top: int) -> list[Path]:
    """Return the folders of the best runs of an experiment, by the F1 that ``cnmc.best`` uses.

    Raises:
        CnmcError: There are too few runs, or they cannot be compared.
    """
    with needs("train", f"experiment={experiment}: ranking its runs"):
        from cnmc.analysis.ranking import candidates_in, rank  # noqa: PLC0415 (pandas)

    runs = rank(candidates_in(root, experiment)[0])
    if len(runs) < top:
        raise CnmcError(
            f"top={top}: experiment {experiment} has {len(runs)} finished runs below {root}; "
            f"top={len(runs)} uses all"
        )
    return [run.folder for run in runs[:top] if run.folder is not None]
