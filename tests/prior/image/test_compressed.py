"""Folders of compressed encoders; `tests/compression` makes them."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mrisem.errors import InputError
from mrisem.imagenet.weights import random_weights
from mrisem.prior.image.compressed import StudentNetwork, load_pruned, load_student
from mrisem.prior.image.perceptual import load_perceptual

FRAME = {"image_size": None, "resized": None}


def write(folder, facts, weights):
    folder.mkdir(exist_ok=True)
    (folder / "encoder.json").write_text(json.dumps(facts))
    save_file({name: value.contiguous() for name, value in weights.items()},
              folder / "encoder.safetensors")  # fmt: skip
    return str(folder)


@pytest.fixture
def student(tmp_path):
    torch.manual_seed(0)
    network = StudentNetwork([5, 7], 4, 2)
    facts = {"kind": "student", "levels": [2, 4], "widths": [5, 7], "grid": 4, "channels": 2}
    return write(tmp_path / "student", facts | {"frame": FRAME}, network.state_dict())


def image(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_student_gives_unit_vectors_of_the_levels_asked_for(student):
    encoder, images = load_student(student, [2, 4], "float32"), image(2, 40, 36)
    outputs = encoder(images)
    assert [o.shape for o in outputs] == [(2, 16, 5), (2, 16, 7)]
    assert (encoder.levels, encoder.widths, encoder.n_tokens) == ((2, 4), (5, 7), 16)
    assert all(o.norm(dim=-1).allclose(torch.ones(2, 16)) for o in outputs)
    torch.testing.assert_close(encoder(3 * images)[1], outputs[1])  # any unit
    (last,) = load_student(student, [4], "float32")(images)
    assert torch.equal(last, outputs[1])
    sum(o[..., 0].sum() for o in outputs).backward()
    assert (images.grad.flatten(1).norm(dim=1) > 0).all()
    assert not any(weight.requires_grad for weight in encoder.parameters())


def test_student_sees_the_frame_of_its_teacher(student, tmp_path):
    facts = json.loads((tmp_path / "student" / "encoder.json").read_text())
    facts["frame"] = {"image_size": 24, "resized": None}
    (tmp_path / "student" / "encoder.json").write_text(json.dumps(facts))
    wide = image(1, 40, 36)
    cropped = wide.detach()[:, 8:32, 6:30]
    # both are divided by their own maximum, which stands within the crop
    cropped[0, 5, 5] = 2
    encoder = load_student(student, [4], "float32")
    torch.testing.assert_close(encoder(wide.detach()), encoder(cropped))


def test_fingerprint_changes_with_weights_and_levels(student, tmp_path):
    prints = [load_student(student, levels, "float32").fingerprint for levels in ([2, 4], [4])]
    torch.manual_seed(1)
    facts = json.loads((tmp_path / "student" / "encoder.json").read_text())
    other = write(tmp_path / "other", facts, StudentNetwork([5, 7], 4, 2).state_dict())
    prints.append(load_student(other, [2, 4], "float32").fingerprint)
    prints.append(load_student(other, [2, 4], "bfloat16").fingerprint)
    assert len(set(prints)) == 4
    assert load_student(student, [2, 4], "float32").fingerprint == prints[0]


def test_a_network_of_which_nothing_was_cut_is_the_network(tmp_path):
    facts = {"kind": "pruned", "levels": [2], "network": "alexnet", "grid": 4}
    path = write(tmp_path / "pruned", facts, random_weights("alexnet", 0))
    pruned = load_pruned(path, [2], "float32")
    whole = load_perceptual("alexnet", [2], 4, random_seed=0, dtype="float32")
    assert torch.equal(pruned(image(1, 48, 40))[0], whole(image(1, 48, 40))[0])
    assert pruned.fingerprint == whole.fingerprint
    assert (pruned.levels, pruned.widths, pruned.n_tokens) == ((2,), (192,), 16)


@pytest.mark.parametrize(
    ("load", "path", "levels", "said"),
    [
        (load_student, None, [4], "make one with `mrisem compress compression=student`"),
        (load_pruned, "missing", [4], "encoder.path must be a folder with encoder.json"),
        (load_pruned, "student", [4], "encoder=pruned needs a folder of that kind, "),
        (load_student, "student", [3], "was made for levels [2, 4], got [3]"),
        (load_student, "student", [], "was made for levels [2, 4], got []"),
        (load_student, "damaged", [4], "must be whole safetensors weights, but"),
        (load_student, "other", [4], "must be the weights of a student, but"),
    ],
)
def test_wrong_folders_are_one_line(student, tmp_path, load, path, levels, said):
    facts = json.loads((tmp_path / "student" / "encoder.json").read_text())
    write(tmp_path / "damaged", facts, {"a": torch.ones(1)})
    (tmp_path / "damaged" / "encoder.safetensors").write_bytes(b"12345678")
    write(tmp_path / "other", facts, {"a": torch.ones(1)})
    with pytest.raises(InputError) as caught:
        load(None if path is None else str(tmp_path / path), levels)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
