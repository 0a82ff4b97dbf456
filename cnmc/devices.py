"""The cores and GPUs of this machine, and how the runs of a study share them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from cnmc.errors import CnmcError


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def num_gpus() -> int:
    """Return the number of GPUs that this process may use (``CUDA_VISIBLE_DEVICES``)."""
    import torch  # noqa: PLC0415 - takes seconds

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def num_jobs() -> int:
    """Return how many runs this machine should train at once: one per GPU, or per four cores."""
    return num_gpus() or max(1, min(num_cores(), max(2, num_cores() // 4)))


def cores_per_job(gpus_per_job: float = 0) -> int:
    """Return the cores of one run, if each uses that share of a GPU.

    With 0, :func:`num_jobs` runs share the cores.
    """
    gpus = num_gpus() if gpus_per_job > 0 else 0
    # 1 / 0.1 may be less than 10.
    jobs = int(gpus / gpus_per_job + 1e-6) if gpus else num_jobs()
    return max(1, num_cores() // max(1, jobs))


def register_resolvers() -> None:
    """Register the numbers for configuration files, as ``${cnmc.num_jobs:}``."""
    for function in (num_cores, num_gpus, num_jobs, cores_per_job):
        OmegaConf.register_new_resolver(f"cnmc.{function.__name__}", function, replace=True)
    # Ray hides the GPUs from a task that asks for none.
    OmegaConf.register_new_resolver("cnmc.gpus_per_job", lambda: min(1, num_gpus()), replace=True)
    OmegaConf.register_new_resolver("cnmc.path", lambda *parts: str(Path(*parts)), replace=True)


@contextmanager
def claim_gpu(accelerator: str = "auto") -> Iterator[int | None]:
    """Yield the index of the visible GPU that the fewest runs of this user have claimed.

    A claim is a lock on a file in the temporary folder, named by the GPU's UUID; the system
    releases it when the process ends. Yields None without a GPU or for another accelerator.
    """
    import torch  # noqa: PLC0415 - takes seconds

    if accelerator not in ("auto", "gpu", "cuda") or not num_gpus():
        yield None
        return
    folder = Path(tempfile.gettempdir()) / f"cnmc-gpus-{os.getuid()}"
    uuids = [torch.cuda.get_device_properties(index).uuid for index in range(num_gpus())]
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        # Slot 0 of every GPU, then slot 1 of every GPU, and so on.
        for number in count():
            slot, index = divmod(number, len(uuids))
            lock = FileLock(folder / f"{uuids[index]}-{slot}.lock")
            with suppress(Timeout):
                lock.acquire(timeout=0)
                break
    except OSError as error:
        raise CnmcError(
            f"{folder}: cannot create a lock to claim a GPU ({error}); "
            "set TMPDIR to another folder of this machine"
        ) from error
    try:
        yield index
    finally:
        lock.release()
