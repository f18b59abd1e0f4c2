"""The record of a run: what counts and what does not."""

import torch

from mrisem.config.compose import compose
from mrisem.verbs.records import hash_weights, make_record

BANK = {"prior AXT2": "hash"}


def key(*words, contents=BANK):
    common = [
        "data=brain",
        "data.root=/a",
        "prior=image_same",
        "encoder=janus_mini",
        "output_dir=x",
    ]
    return make_record(compose("reconstruct", [*common, *words]), contents).key


def test_record_counts_what_changes_a_result():
    changes = ["seed=1", "mask.acceleration=3", "prior.weight=0.5", "data.kspace_center=corner"]
    keys = {key(), *(key(word) for word in changes), key(contents={"prior AXT2": "other"})}
    assert len(keys) == 2 + len(changes)


def test_record_does_not_count_places_and_ways():
    words = ["data.root=/b", "data.n_workers=2", "data.max_slices=1", "logger=csv", "output_dir=y"]
    words += ["on_error=skip", "trainer.enable_progress_bar=true", "encoder.path=/elsewhere"]
    assert {key(word) for word in words} == {key()}


def test_record_counts_the_path_of_an_encoder_whose_content_nobody_tells():
    assert key("encoder.path=/elsewhere", contents={}) != key(contents={})


def test_record_of_the_same_run_without_its_prior_is_found():
    plain = make_record(compose("reconstruct", ["data.root=/a", "output_dir=x"]), {"weights": "w"})
    words = ["data.root=/c", "output_dir=x", "prior=image_same", "prior.weight=0.3"]
    guided = make_record(compose("reconstruct", words), {"weights": "w", **BANK})
    other = make_record(compose("reconstruct", [*words, "seed=1"]), {"weights": "w", **BANK})
    assert guided.key_without_prior == plain.key_without_prior != other.key_without_prior


def test_hash_of_weights_tells_values_and_takes_every_dtype():
    module = torch.nn.Linear(2, 1).to(torch.bfloat16)
    before = hash_weights(module)
    assert before == hash_weights(module)
    with torch.no_grad():
        module.bias += 1
    assert hash_weights(module) != before
    assert hash_weights(torch.nn.Identity()) == {}
