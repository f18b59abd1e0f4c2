"""What a reader must know first: what the runs are of, what guided them, and what came out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mrisem.metrics.statistics import MIN_TESTED
from mrisem.results.inside import one_line
from mrisem.results.labels import without_prior
from mrisem.results.reading import open_hdf5, text_of
from mrisem.results.rows import Column, Row
from mrisem.results.run import Run
from mrisem.results.summary import paired_tests
from mrisem.results.tables import p_text

CORE = ("psnr", "ssim", "haarpsi", "lpips", "nmse", "seconds")  # columns of the first table
_NAMED = ("haarpsi", "psnr", "ssim", "lpips", "nmse")  # the first two there are, in a verdict
_LEVEL = 0.05  # of p, corrected, from which on a difference counts as shown
_MOST_SENTENCES = 2  # runs with a prior that have a sentence each
_CLASSICAL = ("cg_sense", "grappa", "tv", "l1_wavelet")
ENCODERS = {
    "vgg16": "VGG16, trained on ImageNet",
    "alexnet": "AlexNet, trained on ImageNet",
    "janus_mini": "Janus mini, a small network trained on simulated scans",
    "janus_pro_1b": "Janus-Pro 1B, trained on images and text",
    "janus_pro_7b": "Janus-Pro 7B, trained on images and text",
    "siglip2": "SigLIP 2, trained on images and text",
    "clip": "CLIP, trained on images and text",
    "dinov2": "DINOv2, trained on images",
    "dinov3": "DINOv3, trained on images",
    "biomedclip": "BiomedCLIP, trained on figures and captions of medical papers",
    "medsiglip": "MedSigLIP, trained on medical images and text",
    "rad_dino": "RAD-DINO, trained on chest radiographs",
}
_MODELS = {
    "zero_filled": "inverse Fourier transform of the samples alone, zeros elsewhere",
    "cg_sense": "least squares with coil sensitivities, by conjugate gradients",
    "grappa": "missing samples interpolated from neighbours, by GRAPPA",
    "tv": "least squares with total variation",
    "l1_wavelet": "least squares with sparse wavelet coefficients (compressed sensing)",
    "unet": "U-Net: a network that corrects the zero-filled image",
    "unrolled": "unrolled network: data consistency and a network in turns",
    "varnet": "end-to-end variational network",
    "inr": "implicit neural representation: a network that maps coordinates to pixels",
}
_SCALES = {
    "smoke": "smoke (a trial of the software: too small to judge image quality)",
    "demo": "demo (small networks, few iterations: minutes on a computer without a GPU)",
}


def headline(runs: Sequence[Run], rows: Sequence[Row]) -> dict[str, str]:
    """Return what the page's banner says, by the name of the fact.

    Args:
        runs: all runs of the page.
        rows: scores of their slices.
    """
    guiding = [guide(run) for run in runs if run.has_prior]
    scales = [str(run.scale) for run in runs if run.scale]
    missing = ["not recorded"] if len(scales) < len(runs) else []
    return {
        "Data": _all(_origin(run) for run in runs),
        "Guided by": _all(guiding) or "no network: no run has a prior",
        "Scale": _all([*(_SCALES.get(name, name) for name in scales), *missing]),
        "Sampling": _all(run.mask or "not recorded" for run in runs),
        "Scored": _counts(rows),
    }


def model_words(runs: Sequence[Run]) -> dict[str, str]:
    """Return what the methods of these runs are, by their names in the tables."""
    models = dict.fromkeys(run.record.model for run in runs)
    return {name: _MODELS[name] for name in models if name in _MODELS}


def _all(texts: Iterable[str]) -> str:
    parts = dict.fromkeys(part for text in texts for part in text.split("; "))
    return one_line("; ".join(parts))


def _origin(run: Run) -> str:
    """Say where a run's scans come from, as their files told; parts are joined by ``; ``."""
    kinds = []
    for path in run.files:
        with open_hdf5(path, "reconstruct it again") as content:
            recorded = "simulation" in content.attrs
            told = text_of(content, "simulation")
        if not recorded:
            kinds.append("not recorded whether measured or simulated")
        elif told.startswith("simulated from images"):
            kinds.append("simulated from images (k-space computed from magnitude images)")
        elif told:
            kinds.append("simulated (no scanner measured them)")
        else:
            kinds.append("taken for measured: the files name no simulation")
    return "; ".join(dict.fromkeys(kinds))


def _counts(rows: Sequence[Row]) -> str:
    told = []
    for anatomy in sorted({row["anatomy"] for row in rows}):
        members = [row for row in rows if row["anatomy"] == anatomy]
        n_subjects = len({row["subject"] or row["file"] for row in members})
        n_slices = len({(row["file"], row["slice"]) for row in members})
        told.append(f"{anatomy} {_count(n_subjects, 'subject')}, {_count(n_slices, 'slice')}")
    return "; ".join(told)


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"


def guide(run: Run) -> str:
    """Return the network that guided a run, in words."""
    name = run.record.encoder or "a network that was not recorded"
    words = ENCODERS.get(name, name)
    if run.settings.get("prior.encoder.random_seed") is not None:
        words = f"{words.partition(',')[0]} with random weights"
    target = run.settings.get("prior.target", "positive")
    return words if target == "positive" else f"{words}; a control: prior.target={target}"


def _short(run: Run) -> str:
    """Return the name alone of the network that guided a run."""
    return guide(run).partition(";")[0].partition(",")[0]


def question(runs: Sequence[Run]) -> str:
    """Return the page's title where none is given."""
    names = dict.fromkeys(_short(run) for run in runs if run.has_prior)
    anatomies = " and ".join(sorted({run.anatomy for run in runs} - {""}))
    what = f"the reconstruction of undersampled {anatomies} MRI".replace("  ", " ")
    if not names:
        return f"How do these methods compare in {what}?"
    return one_line(f"Does guidance by {' or '.join(names)} improve {what}?")


def same_network(runs: Sequence[Run], columns: Sequence[Column]) -> dict[str, list[Column]]:
    """Return the scores that compare features of a network that guided: its name to columns."""
    judged: dict[str, list[Column]] = {}
    for run in runs:
        network = run.settings.get("prior.encoder.network") if run.has_prior else None
        if run.settings.get("prior.encoder.random_seed") is not None:
            continue  # the score's weights are the trained ones
        if network and (same := [c for c in columns if c.network == network]):
            judged[_short(run)] = same
    return judged


def verdict(
    group: Mapping[str, Any], rows: Sequence[Row], columns: Sequence[Column], runs: Sequence[Run]
) -> str:
    """Say what came out of runs that may be compared: a sentence or two.

    Args:
        group: one of the ``groups`` of `mrisem.results.summary.summary_of`.
        rows: its rows.
        columns: its columns of numbers.
        runs: its runs, in table order.
    """
    by_name = {column.name: column for column in columns}
    named = [by_name[name] for name in _NAMED if name in by_name]
    tests = {(test["method"], test["metric"]): test for test in group["paired_tests"]}
    shown = [column for column in named if any(c == column.name for _, c in tests)][:2]
    if not shown:
        return "One method alone: there is nothing to compare with."
    guided = [run for run in runs if run.has_prior and (run.label, shown[0].name) in tests]
    if not guided:
        last = [run for run in runs if (run.label, shown[0].name) in tests][-1]
        return _sentence(last, runs, tests, shown)
    if len(guided) <= _MOST_SENTENCES:
        return " ".join(
            _sentence(run, runs, tests, shown) + _against_classical(run, runs, rows, group, shown)
            for run in guided
        )
    sign = 1 if shown[0].better == "higher" else -1
    first = [tests[run.label, shown[0].name] for run in guided]
    gains = [sign * (test["mean_difference"] or 0.0) for test in first]
    better = [test for test, gain in zip(first, gains, strict=True) if gain > 0]
    sure = [test for test in better if (p := test["p_holm"]) is not None and p < _LEVEL]
    best = guided[gains.index(max(gains))]
    lead = (
        f"{_name(shown[0])[0]} got better in {len(better)} of {len(guided)} runs with a prior"
        f" ({p_text(_LEVEL).replace('=', '<')} after Holm's correction in {len(sure)}). "
    )
    return f"{lead}The largest gain: {_sentence(best, runs, tests, shown)}"


def _sentence(
    run: Run, runs: Sequence[Run], tests: Mapping[tuple[str, str], Any], columns: Sequence[Column]
) -> str:
    """Say how one run differs from what it is tested against."""
    pairs = [(tests[run.label, c.name], c) for c in columns if (run.label, c.name) in tests]
    reference, n = pairs[0][0]["reference"], pairs[0][0]["n_subjects"]
    plain = without_prior(run, runs)
    n_guided = sum(other.has_prior for other in runs)
    if plain and plain.label == reference:
        which = f" of {run.label}" if n_guided > 1 else ""
        opening = f"With the prior{which} ({guide(run)}), against the same method without it, "
    else:
        opening = f"{run.label} against {reference}: "
    if not n:
        return f"{opening}no slice was reconstructed by both."
    told = " and ".join(_change(test, column) for test, column in pairs)
    few = f"; {_count(n, 'subject')}: too few for a test" if n < MIN_TESTED else ""
    return f"{opening}{told}{few}."


def _name(column: Column) -> tuple[str, str]:
    """Return a score's name and its unit after a space: ``PSNR [dB]`` gives PSNR and `` dB``."""
    name, _, unit = column.label.partition(" [")
    return name, f" {unit.rstrip(']')}" if unit else ""


def _change(test: Mapping[str, Any], column: Column) -> str:
    """Say how one score changed, in how many subjects, and whether that was tested."""
    (name, unit), change, n = _name(column), test["mean_difference"], test["n_subjects"]
    if change is None:
        return f"{name} is missing"
    size = f"{abs(change):.{column.digits}f}{unit}"
    counted = f"better in {round(test['share_better'] * n)} of {_count(n, 'subject')}"
    p = test["p_holm"]
    tested = "" if p is None else f", {p_text(p)}, Holm"
    if p is not None and p >= _LEVEL:
        sign = "+" if change > 0 else "\N{MINUS SIGN}"
        return f"no difference in {name} was shown ({sign}{size}, {counted}{tested})"
    if float(f"{change:.{column.digits}f}") == 0:
        return f"{name} changed by less than {10**-column.digits:g}{unit} ({counted}{tested})"
    worse = (change > 0) != (column.better == "higher")
    verb = "rose" if change > 0 else "fell"
    return f"{name} {verb} by {size}{', which is worse' if worse else ''} ({counted}{tested})"


def _against_classical(
    run: Run,
    runs: Sequence[Run],
    rows: Sequence[Row],
    group: Mapping[str, Any],
    columns: Sequence[Column],
) -> str:
    """Say how a run with a prior stands against the classical method with the best first score."""
    score, sign = columns[0].name, 1 if columns[0].better == "higher" else -1
    means = {
        other.label: sign * mean
        for other in runs
        if other.record.model in _CLASSICAL
        and not other.has_prior
        and (mean := group["methods"][other.label][score]["mean"]) is not None
    }
    if not means:
        return ""
    rival = max(means, key=means.__getitem__)
    tests = paired_tests(rows, columns, {run.label: rival})
    pairs = [pair for pair in zip(tests, columns, strict=True) if pair[0]["n_subjects"]]
    if not pairs:
        return ""
    told = []
    for test, column in pairs:
        (name, unit), n = _name(column), test["n_subjects"]
        more = "higher" if test["mean_difference"] > 0 else "lower"
        size = f"{abs(test['mean_difference']):.{column.digits}f}{unit}"
        counted = f"better in {round(test['share_better'] * n)} of {n}"
        told.append(f"{name} is {size} {more} ({counted})")
    return f" Against {rival}, the best classical method here (not tested), {' and '.join(told)}."
