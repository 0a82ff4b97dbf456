"""Opens a trained network, whatever it is kept in; torch is imported where it is needed alone."""

from __future__ import annotations

from pathlib import Path

from cnmc.deploy.runtime import Predictor, open_predictor
from cnmc.errors import CnmcError
from cnmc.extras import needs

CHECKPOINT = Path("checkpoints") / "best.ckpt"
"""Where a run folder has the network of its best epoch."""


def open_network(path: Path, num_threads: int | None = None) -> Predictor:
    """Open a trained network for prediction on the CPU.

    A checkpoint is run as training evaluates it, so its logits are those of the run folder. Nothing
    in a file is executed as Python; see :mod:`cnmc.deploy.torchscript` for ``.pt``.

    Args:
        path: A checkpoint, a run folder (its best checkpoint is taken), or a file of
            ``python -m cnmc.export``: ``.onnx``, ``.xml`` or ``.pt``.
        num_threads: Threads that compute; None takes all cores.

    Raises:
        CnmcError: There is no such file, it is damaged, of another kind or not of cnmc, or what
            runs it is not installed.
    """
    if path.suffix in (".onnx", ".xml") and not path.is_dir():
        return open_predictor(path, num_threads)
    checkpoint = find_checkpoint(path)
    with needs("train", f"{path}: opening it"):
        from cnmc.deploy.backends import eager  # noqa: PLC0415 - torch
        from cnmc.deploy.graph import load_graph  # noqa: PLC0415
        from cnmc.deploy.torchscript import open_torchscript  # noqa: PLC0415
    if checkpoint.suffix == ".pt":
        return open_torchscript(checkpoint, num_threads)
    return eager(load_graph(checkpoint), num_threads)


def find_checkpoint(path: Path) -> Path:
    """Return the file of a network, which for a run folder is its best checkpoint.

    Raises:
        CnmcError: There is no such file.
    """
    if path.is_dir():
        if not (path / CHECKPOINT).is_file():
            raise CnmcError(
                f"{path}: no {CHECKPOINT} in this folder; give a run folder with a trained "
                "network, a checkpoint, or a file of python -m cnmc.export"
            )
        return path / CHECKPOINT
    if not path.is_file():
        raise CnmcError(
            f"{path}: no such file; give a run folder, a checkpoint, or a file of python -m "
            "cnmc.export"
        )
    return path
