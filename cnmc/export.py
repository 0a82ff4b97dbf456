"""Command ``python -m cnmc.export``: a trained network as a checked file with a model card."""

from __future__ import annotations

from cnmc.cli.app import start

if __name__ == "__main__":
    start()

from contextlib import ExitStack
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

import hydra
from omegaconf import DictConfig

from cnmc.cli.app import run_app, user_errors
from cnmc.config import ExportConfig, register, to_config
from cnmc.deploy.formats import INT8, export_network, find_cells
from cnmc.deploy.graph import read_trained
from cnmc.deploy.model_card import card_path, model_card
from cnmc.deploy.networks import find_checkpoint
from cnmc.errors import CnmcError
from cnmc.files import replacing

register()


def export(config: ExportConfig) -> None:
    """Write the file and its card, or neither."""
    trained = read_trained(find_checkpoint(Path(config.checkpoint)))
    output, cells = Path(config.output), None
    root = Path(config.data.root) if config.data.root else None
    try:
        cells = find_cells(trained, root)
    except CnmcError as error:
        if root or config.format == INT8:
            raise
        print(f"the cells of its run are not available ({error}); give their folder: data.root=DIR")
    try:
        with TemporaryDirectory() as folder, ExitStack() as stack:
            file, card = Path(folder) / output.name, card_path(output)
            check = export_network(trained, config.format, file, cells)
            text = model_card(trained, check, output.name, cells)
            file.with_name(card.name).write_text(text, encoding="utf-8")
            for source in file.parent.iterdir():  # they are renamed when all are copied
                copyfile(source, stack.enter_context(replacing(output.with_name(source.name))))
    except OSError as error:
        raise CnmcError(f"output={output}: cannot be written ({error})") from error
    print(f"written: {output}, {card.name}\n{check.line}")


@hydra.main(version_base="1.3", config_path=None, config_name="export")
def main(node: DictConfig) -> None:
    """Export the network of a composed configuration."""
    with user_errors():
        export(to_config(node))


if __name__ == "__main__":
    run_app(main, ExportConfig)
