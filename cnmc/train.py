"""``python -m cnmc.train``: trains one run, or every run of a study that the overrides sweep."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from typing import Any, cast

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.exceptions import SIGTERMException

from cnmc.analysis.summary import summary
from cnmc.app import TERMINATED, run_app, user_errors
from cnmc.build import build_classifier, build_datamodule, build_trainer, device_name
from cnmc.callbacks.checkpoints import EpochCheckpoints, load_checkpoint, strip_optimizer
from cnmc.callbacks.recorder import RunRecorder
from cnmc.config import CONFIG_DIR, Config, register, to_config
from cnmc.data.store import CellStore, open_cells
from cnmc.lifecycle import open_run
from cnmc.runs import RunFolder, RunInfo
from cnmc.study import close_study, job_folder
from cnmc.tracking import tracked

register()
# Lightning's advice and its notes on the machine would drown the lines about the runs.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", module="pytorch_lightning")


def train(config: Config, resolved: dict[str, Any], folder: RunFolder) -> None:
    """Train and evaluate one run, go on with it, or skip it; all it finds out is in its folder."""
    with folder.lock():
        store = open_cells(config.data, config.split)
        action, info = open_run(folder, config, resolved, store)
        if action == "skip":
            print(f"{folder.path}: finished already")
            return
        try:
            fit(config, resolved, folder, store, info, resume=action == "resume")
        except SIGTERMException:
            # Lightning stops between two batches, and would end as if all were done.
            sys.exit(TERMINATED)
        except Exception:
            info.status, info.error = "failed", traceback.format_exc()
            folder.write_info(info)
            raise
        info.status = "finished"
        folder.write_info(info)
        # Only now: an interrupted run needs the optimiser's state to go on.
        strip_optimizer(folder.last_checkpoint)


def fit(
    config: Config,
    resolved: dict[str, Any],
    folder: RunFolder,
    store: CellStore,
    info: RunInfo,
    *,
    resume: bool,
) -> None:
    """Fit a run to its last epoch, then evaluate the best checkpoint on the cells kept for it."""
    pl.seed_everything(config.seed, workers=True, verbose=False)
    if config.trainer.num_threads is not None:
        torch.set_num_threads(config.trainer.num_threads)
    data = build_datamodule(config, store)
    module = build_classifier(config, data.pos_weight)
    recorder = RunRecorder(folder, info, data.evaluated, config.tta.num_rotations)
    checkpoints = EpochCheckpoints(folder, info, resolved)
    with tracked(config.logger, folder=folder, info=info, config=resolved) as loggers:
        trainer = build_trainer(
            config,
            callbacks=[recorder, checkpoints],
            recorder=recorder,
            loggers=loggers,
            terminal=sys.stdout.isatty(),
        )
        info.hardware["accelerator"] = device_name(trainer)
        if not resume:
            trainer.validate(module, data, verbose=False)
        last = folder.last_checkpoint if resume else None
        trainer.fit(module, data, ckpt_path=last, weights_only=True)
        if data.has_test:
            module.load_state_dict(load_checkpoint(folder.best_checkpoint)["state_dict"])
            trainer.test(module, data, verbose=False)


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="config")
def main(node: DictConfig) -> None:
    """Train the run that a composed configuration describes."""
    job = HydraConfig.get()
    with user_errors():
        config: Config = to_config(node)
        resolved = cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True))
        folder = job_folder(config, list(job.overrides.task), dict(job.sweeper.params or {}))
        train(config, resolved, folder)
        if job.mode == RunMode.RUN:
            print(summary([folder]))


if __name__ == "__main__":
    run_app(main, sweeps=True, close=close_study)
