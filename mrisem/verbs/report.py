"""`mrisem report`: makes one self-contained page from evaluated run folders."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from mrisem.errors import InputError
from mrisem.verbs.tables import show_scores


def run(config: DictConfig) -> int:
    """Write the page, its figures and the tables; print the page's path."""
    from mrisem.report.page import make_page
    from mrisem.results.evaluated import read_evaluated
    from mrisem.results.labels import check_reference
    from mrisem.results.runs import find_runs

    folders = [config.runs] if isinstance(config.runs, str) else config.runs
    if not folders:
        raise InputError("runs must name evaluated run folders, got none; set runs=[DIR,DIR]")
    roots = [Path(root).expanduser().resolve() for root in folders]
    if config.embedding == "umap" and not config.embedding_slices:
        raise InputError(
            "embedding=umap draws embedding_slices of each run, got 0; set embedding_slices=12, or "
            "leave embedding out"
        )
    runs = find_runs(roots)
    evaluated = read_evaluated(roots, runs)
    check_reference(config.reference, runs)
    page = make_page(runs, evaluated, config)
    output = Path(config.output_dir).expanduser().resolve()
    # output_dir=PAGE/report and output_dir=PAGE mean the same
    folder = output if output.name == "report" else output / "report"
    page.write(folder)
    show_scores(page.tables)
    print(folder / "index.html")
    return 0
