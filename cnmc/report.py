"""``python -m cnmc.report``: what the run folders show, also while the study is running."""

from __future__ import annotations

from cnmc.cli.app import start

if __name__ == "__main__":
    start()

from pathlib import Path

import hydra
from omegaconf import DictConfig

from cnmc.analysis.loading import existing_runs, load_study
from cnmc.analysis.results import run_table, with_reference
from cnmc.analysis.summary import summarise
from cnmc.cli.app import run_app, user_errors
from cnmc.config import ReportConfig, register, to_config
from cnmc.errors import CnmcError
from cnmc.files import replacing
from cnmc.reporting.assemble import assemble
from cnmc.reporting.document import write

register()


def report(config: ReportConfig) -> None:
    """Print the summary of the runs, and write the report: page, tables, figures."""
    root = Path(config.runs)
    study = load_study(existing_runs(root, config.experiments or None))
    if config.reference is not None:
        study = with_reference(study, config.reference)
    print(summarise(study))
    if not study.groups:
        print("\nno run is finished yet, so there is nothing to report")
        return
    output = Path(config.output)
    data = Path(config.data.root) if config.data.root is not None else None
    try:
        # First, so that a folder that cannot be written fails before the work.
        with replacing(output / "tables" / "runs.csv", lasting=False) as temporary:
            run_table(study.groups).to_csv(temporary, index=False)
        write(assemble(study, root=root, data=data), output)
    except OSError as error:
        raise CnmcError(
            f"output={output}: cannot write {error.filename or 'the report'} ({error.strerror}); "
            "expected a folder with free space that you may write to, give output=DIR"
        ) from error
    print(f"\nreport: {output / 'report.html'}")


@hydra.main(version_base="1.3", config_path=None, config_name="report")
def main(node: DictConfig) -> None:
    """Report the runs that a composed configuration names."""
    with user_errors():
        report(to_config(node))


if __name__ == "__main__":
    run_app(main, ReportConfig)
