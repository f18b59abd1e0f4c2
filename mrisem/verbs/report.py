"""`mrisem report`: one self-contained page from evaluated run folders."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from mrisem.errors import InputError
from mrisem.verbs.tables import show_scores


def run(config: DictConfig) -> int:
    """Write the page, its figures and the tables; print where the page is."""
    from mrisem.report.page import make_page
    from mrisem.results.evaluated import read_evaluated
    from mrisem.results.labels import check_reference
    from mrisem.results.runs import find_runs

    listed = [config.runs] if isinstance(config.runs, str) else config.runs
    if not listed:
        raise InputError("runs must name evaluated run folders, got none; add runs=[DIR,DIR]")
    roots = [Path(root).expanduser().resolve() for root in listed]
    if config.embedding == "umap" and not config.embedding_slices:
        raise InputError(
            "embedding=umap draws embedding_slices of each run, got 0; set embedding_slices=12, or "
            "leave embedding out"
        )
    runs = find_runs(roots)
    found = read_evaluated(roots, runs)
    check_reference(config.reference, runs)
    page = make_page(runs, found, config)
    output = Path(config.output_dir).expanduser().resolve()
    folder = output if output.name == "report" else output / "report"
    page.write(folder)
    show_scores(page.tables)
    print(folder / "index.html")
    return 0
