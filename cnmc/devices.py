"""What this process may compute on: its cores, and a GPU of its own.

A study of several runs at once shares a machine without a scheduler: as many runs as GPUs, or as
the cores allow, and each run claims the GPU that the fewest others have claimed.
"""

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
"""Cores that a run on a CPU still gains from; more of them serve better as further runs."""


_GPUS = ("auto", "gpu", "cuda")
"""Accelerators that take a GPU of CUDA where there is one."""


def num_cores() -> int:
    """Return the number of cores that this process may use, which a scheduler may restrict."""
    return len(os.sched_getaffinity(0))


def num_gpus() -> int:
    """Return the number of GPUs that this process may use (``CUDA_VISIBLE_DEVICES``)."""
    import torch  # noqa: PLC0415 - takes seconds, and most configurations never ask

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def num_jobs() -> int:
    """Return how many runs this machine serves well at once: one a GPU, or some cores each."""
    cores = num_cores()
    return num_gpus() or max(1, min(cores, max(2, cores // _CORES_PER_JOB)))


def gpus_per_job() -> int:
    """Return 1 where there is a GPU, else 0: Ray hides the GPUs from a task that asks for none."""
    return min(1, num_gpus())


def cores_per_job(gpus_per_job: float = 0) -> int:
    """Return the cores of one of the runs that share this machine.

    Args:
        gpus_per_job: Share of a GPU that a run takes; 0 where :func:`num_jobs` run at once.
    """
    gpus = num_gpus() if gpus_per_job > 0 else 0
    # A sum of shares such as 10 * 0.1 may fall short of 1.
    jobs = int(gpus / gpus_per_job + 1e-6) if gpus else num_jobs()
    return max(1, num_cores() // max(1, jobs))


def _path(*parts: str) -> str:
    return str(Path(*parts))


def register_resolvers() -> None:
    """Make this machine's numbers known to configuration files, as ``${cnmc.num_jobs:}``."""
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

    A claim is a lock on a file below the machine's own temporary folder. The system frees the lock
    of a process that dies, and other commands see it, whatever GPUs are visible to them, since the
    files are named by the hardware.

    Args:
        accelerator: ``trainer.accelerator`` of the run.

    Yields:
        Its index among the visible GPUs; None without a GPU, or for another accelerator.

    Raises:
        CnmcError: No lock can be made.
    """
    import torch  # noqa: PLC0415 - see num_gpus

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
    """Take the lowest free slot: the first of all GPUs, then the second of all, and so on."""
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
            f"{folder}: no lock can be made to claim a GPU ({error}); "
            "TMPDIR names another folder of this machine"
        ) from error
