"""The first step of a command, before it imports PyTorch."""

from __future__ import annotations

import os
import sys

from cnmc.extras import absent


def start(*, trains: bool = True) -> None:
    """Prepare this process for PyTorch.

    Args:
        trains: Whether the command needs the extra ``train``. If that is not installed, one line
            says so and the process ends with status 2.
    """
    if trains and (missing := absent()):
        sys.stderr.write(
            f"error: {', '.join(missing)} not installed, which this command needs: "
            "pip install 'cnmc[train]'\n"
        )
        sys.exit(2)
    # Large tensors in pages of 2 MB make training on a CPU a third faster. PyTorch reads this once,
    # at its first tensor, which importing it makes.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # albumentations would look for a newer version over the network when it is imported.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
