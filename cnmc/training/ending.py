"""How a training ends early: by a signal, or by an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl

from cnmc.signals import end_if_received


class EndOnSignal(pl.Callback):
    """Checks before each batch whether a signal came whose exception was lost."""

    def on_train_batch_start(self, *_: Any) -> None:
        """Raise the exception again."""
        end_if_received()

    def on_validation_batch_start(self, *_: Any, **__: Any) -> None:
        """Raise the exception again."""
        end_if_received()

    on_test_batch_start = on_validation_batch_start


@contextmanager
def first_error() -> Iterator[None]:
    """Raise the error that ended the training, not one that its clean-up met afterwards."""
    caught: Exception | None = None
    try:
        yield
    except Exception as error:
        caught = error
        while caught.__cause__ is None and isinstance(caught.__context__, Exception):
            caught = caught.__context__
    if caught is not None:
        raise caught
