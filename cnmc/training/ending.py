"""How a training ends early: by a signal, or by an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl

from cnmc.signals import end_if_received


class EarlyEnd(pl.Callback):
    """Checks for signals whose exception was lost, and remembers the error that ends a training."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def on_train_batch_start(self, *_: Any) -> None:
        """Raise the exception of a signal again."""
        end_if_received()

    def on_validation_batch_start(self, *_: Any, **__: Any) -> None:
        """Raise the exception of a signal again."""
        end_if_received()

    on_test_batch_start = on_validation_batch_start

    def on_exception(self, _trainer: Any, _module: Any, exception: BaseException) -> None:
        """Remember the error."""
        self.error = exception

    @contextmanager
    def first_error(self) -> Iterator[None]:
        """Raise the error that ended the training, not one that Lightning's clean-up met later."""
        try:
            yield
        except Exception as error:
            if isinstance(self.error, Exception) and self.error is not error:
                raise self.error from None
            raise
