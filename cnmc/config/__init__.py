"""Typed schema of every configuration key.

The YAML files under ``conf/`` hold the values; these dataclasses hold the types, the meaning and
the range of each key. Hydra refuses a misspelt key or a wrong type while it composes;
:func:`to_config` turns the composed node into these dataclasses and checks the ranges.
"""

from cnmc.config.applications import (
    EXPORT_SUFFIXES,
    BestConfig,
    CellsConfig,
    ExportConfig,
    PredictConfig,
    ReportConfig,
)
from cnmc.config.composing import CONFIG_DIR, SCHEMAS, STANDALONE, register, to_config
from cnmc.config.data_groups import AugmentConfig, DataConfig, SplitConfig, SyntheticConfig
from cnmc.config.fields import check, path_keys
from cnmc.config.model_groups import (
    STAGES,
    FlatOptimizerConfig,
    LayerwiseOptimizerConfig,
    LayerwiseRates,
    ModelConfig,
    OptimizerConfig,
    StagesConfig,
    TTAConfig,
)
from cnmc.config.recipe import (
    BenchmarkConfig,
    Config,
    LoggerConfig,
    PrepareConfig,
    RunConfig,
    StudyConfig,
    TrainerConfig,
)
