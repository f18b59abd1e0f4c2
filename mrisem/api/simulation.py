"""Simulated scans, for trying things without data."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path

from mrisem.api.options import Overrides, given, words
from mrisem.config.compose import compose


def simulate(
    folder: str | PathLike[str],
    *,
    source: str | PathLike[str] | None = None,
    scale: str | None = None,
    seed: int | None = None,
    overrides: Overrides = None,
) -> Path:
    """Write simulated scans in fastMRI's format, as ``mrisem simulate`` does.

    Args:
        folder: gets ``brain`` and ``knee``, each with ``multicoil_train`` and ``multicoil_val``;
            files that are there stay.
        source: folder of DICOM or NIfTI images that scans are simulated from; None: simulated
            subjects.
        scale: ``smoke``, ``demo`` or ``paper``: numbers and sizes; None: ``demo``.
        seed: seed of subjects, coils and noise; None: 0.
        overrides: more options of ``mrisem simulate``, such as ``{"n_coils": 4}``.

    Returns:
        the folder.
    """
    from mrisem.verbs.simulate import run

    place = Path(fspath(folder)).expanduser()
    options = given(
        output_dir=place,
        source=None if source is None else fspath(source),
        scale=scale,
        seed=seed,
    )
    run(compose("simulate", [*options, *words(overrides)]))
    return place
