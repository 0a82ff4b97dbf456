"""Ends a run whose signal got lost."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from cnmc.signals import end_if_received


class EndOnSignal(pl.Callback):
    """Asks before each batch whether a signal came."""

    def on_train_batch_start(self, *_: Any) -> None:
        """Raise what was lost."""
        end_if_received()

    def on_validation_batch_start(self, *_: Any, **__: Any) -> None:
        """Raise what was lost."""
        end_if_received()

    on_test_batch_start = on_validation_batch_start
