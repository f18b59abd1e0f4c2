"""Runs without files, of a record and a label."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from mrisem.results.record import Record
from mrisem.results.run import Run


def record_of(method="unrolled", words=(), anatomy="brain", mask="gaussian", rate=4, **more):
    """A record whose settings are those of the command line, over defaults."""
    model, _, prior = method.partition(" + ")
    settings = {"data": {"name": anatomy}, "mask": {"name": mask, "acceleration": float(rate)}}
    settings |= {"model": {"name": model}, "prior": {"name": prior or "none"}, "seed": 0}
    settings |= more
    settings["prior"] = settings["prior"] | {"name": prior or "none"}
    for word in words:
        key, _, value = word.partition("=")
        if key in ("mask", "mask.acceleration", "output_dir"):
            continue
        *above, last = key.split(".")
        place = settings
        for part in above:
            place = place.setdefault(part, {})
        place[last] = {"name": value} if isinstance(place.get(last), dict) else yaml.safe_load(value)
    facts = {"model": model, "prior": prior or None, "anatomy": anatomy, "mask": mask}
    facts |= {"acceleration": (rate,), "overrides": tuple(words), "settings": settings}
    return Record(**facts)


@pytest.fixture
def make_record():
    return record_of


@pytest.fixture
def make_run():
    def made(name, words=(), method="unrolled", files=("a.h5",), **more):
        folder = Path("/runs") / name
        paths = tuple(folder / "reconstructions" / file for file in files)
        record = record_of(method, words, **more)
        return Run(folder, paths, record, record.method)

    return made


@pytest.fixture
def labelled(make_run):
    """Make runs of these labels, ``method [settings]``."""

    def made(*labels, **more):
        runs = []
        for index, label in enumerate(labels):
            method, _, words = label.partition(" [")
            listed = [word for word in words.removesuffix("]").split(", ") if word]
            run = make_run(str(index), listed, method, **more)
            runs.append(replace(run, label=label))
        return runs

    return made
