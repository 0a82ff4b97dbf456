"""``python -m cnmc.prepare``: finds the data, checks it, and builds what training reads."""

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
from cnmc.data.audit import audit
from cnmc.data.composition import composition, format_composition
from cnmc.data.splits import load_split
from cnmc.data.store import find_cells, read_cells
from cnmc.errors import CnmcError

register()


def prepare(config: PrepareConfig) -> None:
    """Print the composition and the problems of the data set; build split and cache."""
    manifest = find_cells(config.data)
    print(
        f"{len(manifest.cells)} cells in {manifest.root} (fingerprint {manifest.fingerprint[:12]})"
    )
    print("\nComposition, beside that of the whole release (Table 1 of the paper)")
    print(format_composition(composition(manifest.cells)), end="\n\n")
    findings = audit(manifest, crop=config.data.crop, skip_unreadable=config.data.skip_unreadable)
    for finding in findings:
        print(f"{finding.level}: {finding.message}")
    unreadable = manifest.cells[manifest.cells["error"] != ""]
    for row in unreadable.itertuples():
        print(f"  {row.path}: {row.error}")
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        sys.stderr.write(f"error: {errors} of the findings above prevent training\n")
        sys.exit(1)
    cells, cache = read_cells(manifest, config.data, verify_all=True)
    side = config.data.resize or config.data.crop
    print(f"cache of {len(cells)} labelled cells, {side} x {side} pixels: {cache.path}")
    try:
        split = load_split(manifest.fingerprint, cells, config.split, Path(config.data.work_dir))
    except CnmcError as error:
        # A partial release can be trained on, with another split.
        print(f"warning: {error}")
    else:
        print(f"split {config.split.kind} (protocol {split.protocol}): {split.path}")


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="prepare")
def main(node: DictConfig) -> None:
    """Prepare the data that a composed configuration describes."""
    with user_errors():
        prepare(to_config(node))


if __name__ == "__main__":
    run_app(main, PrepareConfig)
