"""What runs are called, and what they are tested against."""

from dataclasses import replace

import pytest

from mrisem.errors import InputError
from mrisem.results.labels import (
    check_reference,
    label_runs,
    reference_of,
    references,
    run_without_prior,
    table_order,
)

PRIOR = "unrolled + image_same"


def labels(*runs):
    return [run.label for run in label_runs(runs)]


def test_runs_of_one_method_on_other_files_or_masks_keep_its_name(make_run):
    runs = [
        make_run("1", ["prior.weight=1"]),
        make_run("2", ["prior.weight=2"], files=("b.h5",)),
        make_run("3", ["prior.weight=2"], rate=8),
    ]
    assert labels(*runs) == ["unrolled"] * 3


def test_runs_that_wrote_down_a_default_choice_keep_their_name(make_run):
    runs = [make_run("1", ["prior=none"]), make_run("2", ["seed=1"])]
    assert labels(*runs) == ["unrolled [seed=0]", "unrolled [seed=1]"]


def make_weighted(make_run, name, weight, words=(), **more):
    return make_run(name, words, PRIOR, prior={"weight": weight}, **more)


def test_runs_of_a_sweep_are_named_by_the_value_used_the_default_included(make_run):
    runs = [
        make_weighted(make_run, "1", 0.1, ["prior.weight=0.10"]),
        make_weighted(make_run, "2", 1.0),
    ]
    assert labels(*runs) == [f"{PRIOR} [prior.weight={w}]" for w in ("0.1", "1")]


def test_runs_of_ablations_have_one_name_in_every_group(make_run):
    runs = [
        make_weighted(make_run, "1", 1),
        make_weighted(make_run, "2", 1, ["prior.weight=2"]),
        make_weighted(make_run, "3", 1, rate=8),
        make_weighted(make_run, "4", 1, ["prior.weight=2"], rate=8),
        make_weighted(make_run, "5", 1, ["seed=7", "prior.weight=1"], rate=8),
    ]
    weighted, seeded = f"{PRIOR} [prior.weight=2]", f"{PRIOR} [seed=7]"
    assert labels(*runs) == [PRIOR, weighted, PRIOR, weighted, seeded]


def test_a_default_written_out_is_no_difference(make_run):
    runs = [
        make_weighted(make_run, "1", 1, ["prior.weight=1", "seed=0"]),
        make_weighted(make_run, "2", 1.0, ["seed=1"]),
    ]
    assert labels(*runs) == [f"{PRIOR} [seed={seed}]" for seed in (0, 1)]


def test_a_swept_setting_of_the_mask_names_the_runs_its_acceleration_does_not(make_run):
    runs = [
        make_run("1", ["mask=gaussian", "mask.acceleration=4", "mask.center_fraction=0.04"]),
        make_run("2", ["mask.acceleration=4.0", "mask.center_fraction=0.08"]),
    ]
    assert labels(*runs) == [f"unrolled [mask.center_fraction={x}]" for x in ("0.04", "0.08")]


def test_runs_of_one_method_are_named_by_what_differs_only(make_run):
    runs = [
        make_run("1", ["seed=0", "prior.weight=1", "output_dir=x"]),
        make_run("2", ["seed=0", "prior.weight=2", "output_dir=y"]),
        make_run("3", ["seed=0"]),
    ]
    assert labels(*runs) == ["unrolled [prior.weight=1]", "unrolled [prior.weight=2]", "unrolled"]


def test_a_choice_of_encoders_names_runs_not_all_that_follows_from_it(make_run):
    runs = []
    for name, levels in (("clip", [1, 2]), ("vgg16", [3, 4])):
        run = make_run(name, [f"encoder={name}"], PRIOR)
        settings = {key: value for key, value in run.record.settings.items() if key != "encoder"}
        settings |= {"encoder": {"levels": levels}, "prior": {"levels": levels}}
        update = {"encoder": name, "settings": settings}
        runs.append(replace(run, record=run.record.model_copy(update=update)))
    assert labels(*runs) == [f"{PRIOR} [encoder={name}]" for name in ("clip", "vgg16")]


def test_runs_that_differ_unwritten_are_named_by_the_shortest_setting_that_tells(make_run):
    runs = [make_run(str(n), fit={"iterations": n, "settings": {"iterations": n}}) for n in (8, 16)]
    assert labels(*runs) == ["unrolled [fit.iterations=8]", "unrolled [fit.iterations=16]"]


def test_runs_of_other_contents_are_named_by_their_hash(make_run):
    runs = [make_run(str(n)) for n in (1, 2)]
    runs = [
        replace(r, record=r.record.model_copy(update={"contents": {"checkpoint": str(n) * 24}}))
        for n, r in enumerate(runs)
    ]
    assert labels(*runs) == [f"unrolled [checkpoint={n}]" for n in ("0" * 8, "1" * 8)]


def test_runs_that_no_setting_tells_apart_are_named_by_folder(make_run):
    expected = ["unrolled [runs/1]", "unrolled [runs/2]"]
    assert labels(make_run("1"), make_run("2")) == expected


def test_a_label_is_one_line_whatever_a_record_says(make_run):
    assert labels(make_run("1", method="a\nb\x1b[31m")) == ["a b?[31m"]


def test_a_regularised_run_has_no_prior(make_run):
    run = make_run("1")
    record = run.record.model_copy(update={"regulariser": "tv"})
    assert record.method == "unrolled + tv"
    assert not replace(run, record=record).has_prior


def regularised(make_run, name, method="unrolled", words=()):
    run = make_run(name, ["regulariser=tv", *words], method, regulariser={"name": "none"})
    record = run.record.model_copy(update={"regulariser": "tv"})
    return replace(run, record=record, label=record.method)


def test_reference_is_the_run_without_prior_then_without_regulariser_then_zero_filled(make_run):
    zero, tv = make_run("z", method="zero_filled"), make_run("t", method="tv")
    plain = make_run("p", regulariser={"name": "none"})
    guided = make_run("g", method=PRIOR, regulariser={"name": "none"})
    smooth, both = regularised(make_run, "s"), regularised(make_run, "b", PRIOR)
    runs = [tv, zero, plain, guided, smooth, both]
    found = references(runs)
    assert found == {
        "tv": "zero_filled",
        "unrolled": "zero_filled",
        PRIOR: "unrolled",
        "unrolled + tv": "unrolled",
        "unrolled + tv + image_same": "unrolled + tv",
    }
    assert reference_of(both, [zero, plain, both]).label == "unrolled"
    assert references([tv, guided]) == {PRIOR: "tv"}  # the first, where nothing else is there
    assert references(runs, "tv") == {run.label: "tv" for run in runs if run.label != "tv"}


def test_reference_is_of_the_same_settings_anatomy_and_sampling(make_run):
    plain = [make_run(f"p{s}", [f"seed={s}"]) for s in (0, 1)]
    guided = [make_run(f"g{s}", [f"seed={s}", "prior.weight=2"], PRIOR) for s in (0, 1)]
    runs = label_runs([*plain, *guided])
    assert [reference_of(run, runs).label for run in runs[2:]] == [
        "unrolled [seed=0]",
        "unrolled [seed=1]",
    ]
    far = make_run("far", rate=8)
    assert reference_of(guided[0], [far, guided[0]]) is None
    assert run_without_prior(guided[0], [far, plain[1]]) is None


def test_partner_is_the_run_that_shares_files(make_run):
    here, there = make_run("1", files=("a.h5",)), make_run("2", files=("b.h5",))
    guided = make_run("3", method=PRIOR, files=("b.h5", "c.h5"))
    assert run_without_prior(guided, [here, there]) == there
    assert run_without_prior(guided, [here]) is None


def test_reference_must_be_a_label(make_run):
    check_reference(None, [make_run("1")])
    with pytest.raises(InputError, match="reference must be one of"):
        check_reference("nosuch", [make_run("1")])


def test_table_order_is_baselines_networks_priors_and_settings_by_number(labelled):
    names = [f"unrolled + image_same [prior.weight={w}]" for w in (10, 2, 0.1)]
    runs = labelled(*names, "unrolled", "other", "tv", "zero_filled")
    expected = ["zero_filled", "tv", "unrolled", *names[::-1], "other"]
    assert [run.label for run in sorted(runs, key=table_order)] == expected


def test_runs_are_named_by_the_paths_that_were_written_not_by_hashes(make_run):
    runs = []
    for path in ("janus_mini", "random/janus_mini"):
        run = make_run(path, [f"encoder.path={path}"], PRIOR)
        settings = {k: v for k, v in run.record.settings.items() if k != "encoder"}
        facts = {"settings": settings, "places": {"encoder.path": path}}
        facts["contents"] = {"prior AXT2": f"{len(path)} of a hash"}
        runs.append(replace(run, record=run.record.model_copy(update=facts)))
    paths = [f"{PRIOR} [encoder.path={path}]" for path in ("janus_mini", "random/janus_mini")]
    assert labels(*runs) == paths
    assert runs[0].record.key != runs[1].record.key
