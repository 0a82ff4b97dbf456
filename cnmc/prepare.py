"""``python -m cnmc.prepare``: find the data, check it, and build what training reads."""

from __future__ import annotations

from cnmc.cli.app import start

if __name__ == "__main__":
    start()

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from cnmc.cli.app import run_app, user_errors
from cnmc.config import CONFIG_DIR, PrepareConfig, register, to_config
from cnmc.data.audit import audit, composition, format_composition
from cnmc.data.splits import load_split
from cnmc.data.store import find_cells, read_cells
from cnmc.errors import CnmcError

register()


def prepare(config: PrepareConfig) -> None:
    """Print the composition and the problems of the data set; build split and cache."""
    data = config.data
    manifest = find_cells(data)
    print(f"{len(manifest.cells)} cells in {manifest.root}, {manifest.fingerprint[:12]}")
    print("\nComposition (here / Table 1 of the paper, which counts the whole release)")
    print(format_composition(composition(manifest.cells)), end="\n\n")
    findings = audit(manifest, crop=data.crop, skip_unreadable=data.skip_unreadable)
    for finding in findings:
        print(f"{finding.level}: {finding.message}")
        if finding.check == "unreadable":
            print("  " + "\n  ".join(finding.names))
    if any(finding.level == "error" for finding in findings):
        sys.stderr.write("error: the errors above prevent training\n")
        sys.exit(1)
    cells, cache = read_cells(manifest, data, verify_all=True)
    side = data.resize or data.crop
    print(f"cache of {len(cells)} labelled cells, {side} x {side} pixels: {cache.path}")
    try:
        split = load_split(manifest.fingerprint, cells, config.split, Path(data.work_dir))
        print(f"split {config.split.kind} (protocol {split.protocol}): {split.path}")
    except CnmcError as error:
        # A partial release can be trained on, with another split.
        print(f"warning: {error}")


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="prepare")
def main(node: DictConfig) -> None:
    """Prepare the data that a composed configuration describes."""
    with user_errors():
        prepare(to_config(node))


if __name__ == "__main__":
    run_app(main, PrepareConfig)
