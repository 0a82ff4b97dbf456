"""``python -m cnmc.export``: a trained network as a checked file, with its model card."""

from __future__ import annotations

import cnmc.cli.needs_train  # isort: skip # noqa: F401

from pathlib import Path

import hydra
from omegaconf import DictConfig

from cnmc.cli.app import run_app, user_errors
from cnmc.config import ExportConfig, register, to_config
from cnmc.deploy.formats import put_in_place
from cnmc.deploy.graph import build_graph
from cnmc.deploy.model_card import card_path, model_card
from cnmc.deploy.opening import find_checkpoint
from cnmc.deploy.release import INT8, checked_file
from cnmc.deploy.run_cells import CellsOfRun, find_cells
from cnmc.deploy.trained import TrainedNetwork, read_trained
from cnmc.errors import CnmcError

register()


def export(config: ExportConfig) -> None:
    """Write the file and its card, or neither.

    Raises:
        CnmcError: The checkpoint cannot be read, the file does not give what the network gives, or
            it cannot be written.
    """
    trained = read_trained(find_checkpoint(Path(config.checkpoint)))
    graph = build_graph(trained)
    output = Path(config.output)
    cells = _cells(trained, config)
    try:
        with checked_file(graph, config.format, output, cells) as (whole, check):
            card = card_path(output)
            text = model_card(trained, check, output, cells)
            written = whole.with_name(card.name)
            written.write_text(text, encoding="utf-8")
            put_in_place(whole, output, {card: written})
    except OSError as error:
        raise CnmcError(f"output={output}: cannot be written ({error})") from error
    print(f"written: {output}, {card.name}\n{check.line()}")


def _cells(trained: TrainedNetwork, config: ExportConfig) -> CellsOfRun | None:
    """Find the cells of the network's run; without them, only those who need them are refused."""
    try:
        return find_cells(trained, config.data.root)
    except CnmcError as error:
        if config.data.root is not None or config.format == INT8:
            raise
        print(f"the cells of its run are not here ({error}); data.root=DIR names their folder")
        return None


@hydra.main(version_base="1.3", config_path=None, config_name="export")
def main(node: DictConfig) -> None:
    """Export the network that a composed configuration names."""
    with user_errors():
        export(to_config(node))


if __name__ == "__main__":
    run_app(main, ExportConfig)
