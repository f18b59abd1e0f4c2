"""First screen of the report in words: data, guiding network, scale, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mrisem.metrics.statistics import MIN_TESTED
from mrisem.results.hdf5 import open_hdf5, text_of
from mrisem.results.inside import one_line
from mrisem.results.labels import run_without_prior
from mrisem.results.rows import Column, Row
from mrisem.results.run import Run
from mrisem.results.summary import paired_tests
from mrisem.results.tables import p_text

CORE = ("psnr", "ssim", "haarpsi", "lpips", "nmse", "seconds")  # columns of the first table
_NAMED = ("haarpsi", "psnr", "ssim", "lpips", "nmse")  # a verdict names the first two available
_LEVEL = 0.05  # corrected p below which a difference counts as shown
_MAX_SENTENCES = 2  # with more runs with a prior, the verdict counts them
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
    "unrolled_vit": "unrolled network whose U-Nets also see features of a frozen encoder",
    "varnet": "end-to-end variational network",
    "inr": "implicit neural representation: a network that maps coordinates to pixels",
}
_SCALES = {
    "smoke": "smoke (a trial of the software: too small to judge image quality)",
    "demo": "demo (small networks, few iterations: minutes on a computer without a GPU)",
}


def headline(runs: Sequence[Run], rows: Sequence[Row]) -> dict[str, str]:
    """Return the facts of the page's banner, by name.

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
    """Return a description of each method of these runs, by its name in the tables."""
    models = dict.fromkeys(run.record.model for run in runs)
    return {name: _MODELS[name] for name in models if name in _MODELS}


def _all(texts: Iterable[str]) -> str:
    """Join texts, whose parts are separated by ``; ``, without repetition."""
    parts = dict.fromkeys(part for text in texts for part in text.split("; "))
    return one_line("; ".join(parts))


def _origin(run: Run) -> str:
    """Return the origin of a run's scans, from the text in their files; joined by ``; ``."""
    kinds = []
    for path in run.files:
        with open_hdf5(path, "reconstruct it again") as content:
            is_recorded = "simulation" in content.attrs
            text = text_of(content, "simulation")
        if not is_recorded:
            kinds.append("not recorded whether measured or simulated")
        elif text.startswith("simulated from images"):
            kinds.append("simulated from images (k-space computed from magnitude images)")
        elif text:
            kinds.append("simulated (no scanner measured them)")
        else:
            kinds.append("taken for measured: the files name no simulation")
    return "; ".join(dict.fromkeys(kinds))


def _counts(rows: Sequence[Row]) -> str:
    """Return the numbers of subjects and slices of each anatomy."""
    counts = []
    for anatomy in sorted({row["anatomy"] for row in rows}):
        members = [row for row in rows if row["anatomy"] == anatomy]
        n_subjects = len({row["subject"] or row["file"] for row in members})
        n_slices = len({(row["file"], row["slice"]) for row in members})
        counts.append(f"{anatomy} {_count(n_subjects, 'subject')}, {_count(n_slices, 'slice')}")
    return "; ".join(counts)


def _count(n: int, word: str) -> str:
    """Return a number with its noun, in the plural unless it is 1."""
    return f"{n} {word}{'' if n == 1 else 's'}"


def guide(run: Run) -> str:
    """Return a description of the network that guided a run."""
    name = run.record.encoder or "a network that was not recorded"
    words = ENCODERS.get(name, name)
    if run.settings.get("prior.encoder.random_seed") is not None:
        words = f"{words.partition(',')[0]} with random weights"
    # controls pull towards another side of the bank: a reader must not take them for the prior
    target = run.settings.get("prior.target", "positive")
    return words if target == "positive" else f"{words}; a control: prior.target={target}"


def _short(run: Run) -> str:
    """Return the name of the network that guided a run, without its description."""
    return guide(run).partition(";")[0].partition(",")[0]


def question(runs: Sequence[Run]) -> str:
    """Return the default title of the page."""
    names = dict.fromkeys(_short(run) for run in runs if run.has_prior)
    anatomies = " and ".join(sorted({run.anatomy for run in runs} - {""}))
    subject = f"the reconstruction of undersampled {anatomies} MRI".replace("  ", " ")
    if not names:
        return f"How do these methods compare in {subject}?"
    return one_line(f"Does guidance by {' or '.join(names)} improve {subject}?")


def same_network(runs: Sequence[Run], columns: Sequence[Column]) -> dict[str, list[Column]]:
    """Return the scores that use the network that guided: name of the network -> columns.

    Such a score favours the run, since both compare the same features.
    """
    judged: dict[str, list[Column]] = {}
    for run in runs:
        network = run.settings.get("prior.encoder.network") if run.has_prior else None
        if run.settings.get("prior.encoder.random_seed") is not None:
            continue  # the score has trained weights, so its features are others
        if network and (same := [c for c in columns if c.network == network]):
            judged[_short(run)] = same
    return judged


def verdict(
    group: Mapping[str, Any], rows: Sequence[Row], columns: Sequence[Column], runs: Sequence[Run]
) -> str:
    """Return the outcome of comparable runs in one or two sentences.

    Args:
        group: one of the ``groups`` of `mrisem.results.summary.summary_of`.
        rows: rows of the group.
        columns: columns of numbers.
        runs: runs of the group, in table order.
    """
    by_name = {column.name: column for column in columns}
    named = [by_name[name] for name in _NAMED if name in by_name]
    tests = {(test["method"], test["metric"]): test for test in group["paired_tests"]}
    # of the scores in order of preference, the first two for which there is a test
    shown = [column for column in named if any(c == column.name for _, c in tests)][:2]
    if not shown:
        return "One method alone: there is nothing to compare with."
    guided = [run for run in runs if run.has_prior and (run.label, shown[0].name) in tests]
    if not guided:
        # without a prior, the last run of the table: networks stand after classical methods
        last = [run for run in runs if (run.label, shown[0].name) in tests][-1]
        return _sentence(last, runs, tests, shown)
    if len(guided) <= _MAX_SENTENCES:
        return " ".join(
            _sentence(run, runs, tests, shown) + _against_classical(run, runs, rows, group, shown)
            for run in guided
        )
    first_tests = [tests[run.label, shown[0].name] for run in guided]
    count, best = _count_better(first_tests, shown[0])
    return f"{count}The largest gain: {_sentence(guided[best], runs, tests, shown)}"


def _count_better(tests: Sequence[Mapping[str, Any]], column: Column) -> tuple[str, int]:
    """Return a sentence on how many runs got better, and the index of the best run.

    Args:
        tests: paired test of each run with a prior, for the column.
        column: the score.
    """
    sign = 1 if column.better == "higher" else -1
    gains = [sign * (test["mean_difference"] or 0.0) for test in tests]
    better = [test for test, gain in zip(tests, gains, strict=True) if gain > 0]
    significant = [test for test in better if (p := test["p_holm"]) is not None and p < _LEVEL]
    sentence = (
        f"{_name(column)[0]} got better in {len(better)} of {len(tests)} runs with a prior"
        f" ({p_text(_LEVEL).replace('=', '<')} after Holm's correction in {len(significant)}). "
    )
    return sentence, gains.index(max(gains))


def _sentence(
    run: Run, runs: Sequence[Run], tests: Mapping[tuple[str, str], Any], columns: Sequence[Column]
) -> str:
    """Return how a run differs from its reference, in one sentence."""
    pairs = [(tests[run.label, c.name], c) for c in columns if (run.label, c.name) in tests]
    reference, n = pairs[0][0]["reference"], pairs[0][0]["n_subjects"]
    plain = run_without_prior(run, runs)
    n_guided = sum(other.has_prior for other in runs)
    if plain and plain.label == reference:
        owner = f" of {run.label}" if n_guided > 1 else ""
        opening = f"With the prior{owner} ({guide(run)}), against the same method without it, "
    else:
        opening = f"{run.label} against {reference}: "
    if not n:
        return f"{opening}no slice was reconstructed by both."
    changes = " and ".join(_change(test, column) for test, column in pairs)
    too_few = f"; {_count(n, 'subject')}: too few for a test" if n < MIN_TESTED else ""
    return f"{opening}{changes}{too_few}."


def _name(column: Column) -> tuple[str, str]:
    """Return name and unit of a score, the unit after a space: ``PSNR [dB]``: PSNR and `` dB``."""
    name, _, unit = column.label.partition(" [")
    return name, f" {unit.rstrip(']')}" if unit else ""


def _change(test: Mapping[str, Any], column: Column) -> str:
    """Return the change of a score, the number of better subjects, and the test, in words."""
    (name, unit), change, n = _name(column), test["mean_difference"], test["n_subjects"]
    if change is None:
        return f"{name} is missing"
    size = f"{abs(change):.{column.digits}f}{unit}"
    counted = f"better in {round(test['share_better'] * n)} of {_count(n, 'subject')}"
    p = test["p_holm"]
    tested = "" if p is None else f", {p_text(p)}, Holm"
    # a difference that is not significant must not read like a result: its sign comes last
    if p is not None and p >= _LEVEL:
        sign = "+" if change > 0 else "\N{MINUS SIGN}"
        return f"no difference in {name} was shown ({sign}{size}, {counted}{tested})"
    if float(f"{change:.{column.digits}f}") == 0:
        return f"{name} changed by less than {10**-column.digits:g}{unit} ({counted}{tested})"
    is_worse = (change > 0) != (column.better == "higher")
    verb = "rose" if change > 0 else "fell"
    return f"{name} {verb} by {size}{', which is worse' if is_worse else ''} ({counted}{tested})"


def _against_classical(
    run: Run,
    runs: Sequence[Run],
    rows: Sequence[Row],
    group: Mapping[str, Any],
    columns: Sequence[Column],
) -> str:
    """Return how a run with a prior compares with the classical method of the best first score."""
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
    changes = []
    for test, column in pairs:
        (name, unit), n = _name(column), test["n_subjects"]
        direction = "higher" if test["mean_difference"] > 0 else "lower"
        size = f"{abs(test['mean_difference']):.{column.digits}f}{unit}"
        counted = f"better in {round(test['share_better'] * n)} of {n}"
        changes.append(f"{name} is {size} {direction} ({counted})")
    told = " and ".join(changes)
    return f" Against {rival}, the best classical method here (not tested), {told}."
