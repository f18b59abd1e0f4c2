import json

import numpy as np
import pytest
import torch
from skimage.io import imsave

from mrisem.adaptation.material import read_picture, read_rows
from mrisem.adaptation.pool import CONTRASTS
from mrisem.adaptation.scans import find_slices, held_out, hold_out, make_pool
from mrisem.data.auxiliary import AuxiliarySettings
from mrisem.errors import InputError

ROW = {"image": "a.npy", "question": "q", "answer": "a"}


def write(folder, *rows, image=True):
    if image:
        np.save(folder / "a.npy", np.ones((4, 4)))
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "p.jsonl").write_text(text)
    return folder / "p.jsonl"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "a line for each question, got none"),
        ([ROW | {"caption": "c"}], "columns of pairs are .* got caption in .*line 1"),
        ([ROW, {"image": "a.npy", "question": "q"}], "text in answer, got None in .*line 2"),
        ([ROW | {"answer": " "}], "text in answer"),
        (["{"], "one JSON object a line"),
        ([ROW | {"image": "gone.npy"}], r"1 are missing, such as .*gone\.npy"),
    ],
)
def test_rows_that_are_wrong_are_refused(tmp_path, rows, words):
    with pytest.raises(InputError, match=words):
        read_rows(write(tmp_path, *rows))


def test_rows_are_found_in_a_folder_with_one_file(tmp_path):
    with pytest.raises(InputError, match="got 0 in"):
        read_rows(tmp_path)
    file = write(tmp_path, ROW, ROW | {"subject": "s"})
    assert read_rows(tmp_path) == read_rows(file)
    assert [row["subject"] for row in read_rows(file)] == ["a.npy", "s"]


def test_pictures_of_all_kinds_are_the_same_image(tmp_path):
    values = np.arange(30, dtype=np.uint8).reshape(5, 6)
    np.save(tmp_path / "a.npy", values)
    imsave(tmp_path / "a.png", values, check_contrast=False)
    imsave(tmp_path / "c.png", np.stack([values] * 3, -1), check_contrast=False)
    for name in ("a.npy", "a.png", "c.png"):
        assert torch.equal(read_picture(tmp_path / name), torch.from_numpy(values).float())


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("a.npy", -np.ones((4, 4)), "not negative"),
        ("a.npy", np.full((4, 4), np.nan), "finite"),
        ("a.npy", np.ones(4), r"\(y, x\)"),
        ("a.txt", None, "end in .npy"),
        ("a.png", None, "must be an image"),
    ],
)
def test_pictures_that_are_none_are_refused(tmp_path, name, values, words):
    (tmp_path / name).write_text("no image")
    if values is not None:
        np.save(tmp_path / name, values)
    with pytest.raises(InputError, match=words):
        read_picture(tmp_path / name)


def test_no_subject_is_on_two_sides_and_the_split_does_not_move():
    subjects = {f"s{n}" for n in range(12)}
    held = held_out(subjects, 0.25, 0)
    assert len(held) == 3
    assert held_out(subjects, 0.25, 1) != held
    assert held_out({"a", "b"}, 0.9, 0) < {"a", "b"}
    with pytest.raises(InputError, match="two or more"):
        held_out({"a"}, 0.5, 0)


def find(root, acquisition=None, **settings):
    settings = AuxiliarySettings(20, str(root), **settings)
    return find_slices(root, acquisition, settings, "raise", {})


def test_pool_of_a_data_set_holds_its_contrasts(simulated):
    one, other = hold_out(find(simulated / "brain"), 0.5, 0)
    assert {v.subject for v in one.volumes}.isdisjoint({v.subject for v in other.volumes})
    (size, (images, codes)), *_ = make_pool(one).items()
    assert images.shape[1:] == (size, size)
    assert {CONTRASTS[code] for code in codes} == {"AXT1", "AXT2", "AXFLAIR"}
    assert float(images.amax((1, 2)).min()) == 1.0
    chosen = find(simulated / "brain", "AXT2")
    assert {volume.acquisition for volume in chosen.volumes} == {"AXT2"}


def test_images_need_a_contrast_and_are_cut(tmp_path, write_nifti):
    for name in ("a", "b"):
        write_nifti(tmp_path / f"{name}.nii", shape=(48, 56, 50 if name == "a" else 52))
    with pytest.raises(InputError, match="do not name their contrast"):
        find(tmp_path)
    slices = find(tmp_path, "AXT2", size=64)
    (pool,) = make_pool(slices).items()
    assert pool[0] == 64
    assert {CONTRASTS[code] for code in pool[1][1]} == {"AXT2"}


@pytest.mark.parametrize(
    ("acquisition", "settings", "words"),
    [
        ("AXT9", {}, "acquisition must be one of AXT1, .*got 'AXT9'"),
        (None, {"size": 64}, "cuts slices of images"),
        ("CORPD_FBK", {}, "must hold CORPD_FBK scans"),
    ],
)
def test_scans_that_cannot_serve_are_refused(simulated, acquisition, settings, words):
    with pytest.raises(InputError, match=words):
        find(simulated / "brain", acquisition, **settings)
