"""The cores and GPUs of this machine, and how the runs of a study share them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from cnmc.errors import CnmcError

_CORES_PER_JOB = 4
"""Further cores hardly speed up a run on a CPU."""

_GPUS = ("auto", "gpu", "cuda")
"""Accelerators that use a CUDA GPU if there is one."""


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def num_gpus() -> int:
    """Return the number of GPUs that this process may use (``CUDA_VISIBLE_DEVICES``)."""
    import torch  # noqa: PLC0415 - takes seconds

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def num_jobs() -> int:
    """Return how many runs this machine should train at once: one per GPU, or some cores each."""
    cores = num_cores()
    return num_gpus() or max(1, min(cores, max(2, cores // _CORES_PER_JOB)))


def gpus_per_job() -> int:
    """Return 1 if there is a GPU, else 0: Ray hides the GPUs from a task that asks for none."""
    return min(1, num_gpus())


def cores_per_job(gpus_per_job: float = 0) -> int:
    """Return the cores of one of the runs that share this machine.

    Args:
        gpus_per_job: Share of a GPU that a run uses; 0 if :func:`num_jobs` runs share the cores.
    """
    gpus = num_gpus() if gpus_per_job > 0 else 0
    # 1 / 0.1 may be less than 10.
    jobs = int(gpus / gpus_per_job + 1e-6) if gpus else num_jobs()
    return max(1, num_cores() // max(1, jobs))


def _path(*parts: str) -> str:
    return str(Path(*parts))


def register_resolvers() -> None:
    """Register the numbers for configuration files, as ``${cnmc.num_jobs:}``."""
    for name, function in (
        ("num_cores", num_cores),
        ("num_gpus", num_gpus),
        ("num_jobs", num_jobs),
        ("gpus_per_job", gpus_per_job),
        ("cores_per_job", cores_per_job),
        ("path", _path),
    ):
        OmegaConf.register_new_resolver(f"cnmc.{name}", function, replace=True)


@contextmanager
def claim_gpu(accelerator: str = "auto") -> Iterator[int | None]:
    """Yield the GPU that the fewest other runs of this user on this machine have claimed.

    A claim is a lock on a file in the temporary folder, named by the GPU's UUID. The system
    releases the lock when the process ends.

    Args:
        accelerator: ``trainer.accelerator`` of the run.

    Yields:
        Its index among the visible GPUs; None without a GPU or for another accelerator.

    Raises:
        CnmcError: The lock cannot be created.
    """
    import torch  # noqa: PLC0415 - takes seconds

    if accelerator not in _GPUS or not num_gpus():
        yield None
        return
    uuids = [str(torch.cuda.get_device_properties(i).uuid) for i in range(num_gpus())]
    index, lock = _claim(uuids)
    try:
        yield index
    finally:
        lock.release()


def _claim(uuids: list[str]) -> tuple[int, FileLock]:
    """Lock the first free slot: slot 0 of every GPU, then slot 1 of every GPU, and so on."""
    folder = Path(tempfile.gettempdir()) / f"cnmc-gpus-{os.getuid()}"
    slot = 0
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        while True:
            for index, uuid in enumerate(uuids):
                lock = FileLock(folder / f"{uuid}-{slot}.lock")
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    continue
                return index, lock
            slot += 1
    except OSError as error:
        raise CnmcError(
            f"{folder}: cannot create a lock to claim a GPU ({error}); "
            "set TMPDIR to another folder of this machine"
        ) from error
