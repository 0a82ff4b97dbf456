"""From the YAML files to a checked configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from cnmc.config.applications import BestConfig, ExportConfig, PredictConfig, ReportConfig
from cnmc.config.fields import check
from cnmc.config.model_groups import FlatOptimizerConfig, LayerwiseOptimizerConfig
from cnmc.config.recipe import BenchmarkConfig, Config, PrepareConfig
from cnmc.devices import register_resolvers
from cnmc.errors import CnmcError


def _config_dir() -> Path:
    """Return the folder of the YAML files: inside an installed wheel, or of the checkout."""
    installed = Path(__file__).parents[1] / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "conf"


CONFIG_DIR = _config_dir()

SCHEMAS: dict[str, type] = {
    "config": Config,
    "benchmark": BenchmarkConfig,
    "prepare": PrepareConfig,
    "report": ReportConfig,
    "best": BestConfig,
    "predict": PredictConfig,
    "export": ExportConfig,
}
"""The schema of each top-level file of ``conf/``."""

STANDALONE = ("report", "best", "predict", "export")
"""Commands whose keys may have the names of config groups of training (``data``, ``split``)."""


def register() -> None:
    """Make the schema and the resolvers known to Hydra; every command calls this first."""
    register_resolvers()
    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        store.store(name=f"{name}_schema", node=schema)
    for name in STANDALONE:
        store.store(name=name, node=OmegaConf.load(CONFIG_DIR / f"{name}.yaml"))
    store.store(group="optimizer", name="layerwise_schema", node=LayerwiseOptimizerConfig)
    store.store(group="optimizer", name="flat_schema", node=FlatOptimizerConfig)


def to_config(node: DictConfig) -> Any:
    """Turn a composed node into its dataclasses and check them.

    Raises:
        CnmcError: A key is unknown or was not given, or a value is not accepted; the message names
            the key.
    """
    missing = sorted(OmegaConf.missing_keys(node))
    if missing:
        wanted = " ".join(f"{key}=VALUE" for key in missing)
        raise CnmcError(f"{missing[0]}: must be given; add {wanted}")
    config = OmegaConf.to_object(node)
    check(config)
    return config
