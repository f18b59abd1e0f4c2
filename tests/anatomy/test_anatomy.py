import importlib.util
from dataclasses import replace

import pytest
import torch

from mrisem.anatomy import brain, knee, template
from mrisem.anatomy.lesions import Lesion, label_lesions
from mrisem.anatomy.tissue import Layer, Sequence, Tissue, compose
from mrisem.errors import InputError

SUBJECTS = [brain.Subject, knee.Subject]


@pytest.mark.parametrize("make", SUBJECTS)
def test_subject_is_decided_by_its_seed(make):
    name = make.acquisitions[0]
    first, again, other = (make(seed, 64).images(name, [0.1]) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert (first - other).norm() > 0.1 * first.norm()


@pytest.mark.parametrize("make", SUBJECTS)
def test_subject_slice_does_not_depend_on_its_neighbours(make):
    name = make.acquisitions[-1]
    alone = make(5, 64).images(name, [0.25])
    among = make(5, 64).images(name, [-0.5, 0.25])
    torch.testing.assert_close(alone[0], among[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", SUBJECTS)
@pytest.mark.parametrize("size", [64, 96])
def test_subject_images_are_finite_and_fill_the_view(make, size):
    subject = make(1, size)
    for name in subject.acquisitions:
        image = subject.images(name, [-0.5, 0.5])
        assert image.shape == (2, size, size)
        assert image.dtype == torch.float32
        assert image.min() >= 0
        assert 0.2 < (image > 0.05 * image.max()).float().mean() < 0.95


@pytest.mark.parametrize("make", SUBJECTS)
def test_subject_larger_view_keeps_the_centre(make):
    subject = make(2, 64)
    name = subject.acquisitions[0]
    small, large = subject.images(name, [0.0]), subject.images(name, [0.0], (128, 80))
    centre = large[:, 32:96, 8:72]
    correlation = torch.corrcoef(torch.stack([small.flatten(), centre.flatten()]))[0, 1]
    assert correlation > 0.98


@pytest.mark.parametrize("make", SUBJECTS)
def test_subject_unknown_acquisition_is_an_input_error(make):
    with pytest.raises(InputError, match="AXT9"):
        make(0, 64).images("AXT9", [0.0])


def test_brain_fluid_is_bright_on_t2_and_dark_on_flair_and_t1():
    signals = {
        name: {tissue: s.signal(brain.TISSUES[tissue]) for tissue in brain.TISSUES}
        for name, s in brain.ACQUISITIONS.items()
    }
    t1, t2, flair = signals["AXT1"], signals["AXT2"], signals["AXFLAIR"]
    assert t1["white"] > t1["grey"] > t1["csf"]
    assert t2["csf"] > t2["grey"] > t2["white"]
    assert flair["csf"] < 0.2 * flair["white"] < 0.2 * flair["grey"]
    for contrast in (t2, flair):
        assert contrast["lesion"] > 1.3 * contrast["white"]
    assert t1["lesion"] < t1["grey"]


def test_brain_some_subjects_have_lesions_and_some_have_none():
    counts = [len(brain.Subject(seed, 64).lesions) for seed in range(30)]
    assert 5 < sum(count > 0 for count in counts) < 25


def test_brain_lesions_are_all_that_presence_decides():
    for seed in range(6):
        some, none, every = (brain.Subject(seed, 64, which) for which in ("some", "none", "all"))
        assert none.lesions == []
        assert every.lesions
        assert some.lesions in ([], every.lesions)
        assert some.tissues == none.tissues == every.tissues
    for subject in (none, every):  # without fine structure, which differs from tissue to tissue
        subject.tissues = {k: replace(t, texture=0.0) for k, t in subject.tissues.items()}
    marked = every.lesion_labels([0.0, 0.5]) > 0
    change = (every.images("AXFLAIR", [0.0, 0.5]) - none.images("AXFLAIR", [0.0, 0.5])).abs()
    assert marked.any()
    assert not none.lesion_labels([0.0, 0.5]).any()
    assert change[marked].min() > 0.02  # every pixel that is marked was painted
    assert change[~marked].max() <= change[marked].max()


@pytest.mark.parametrize(("make", "presence"), [(brain.Subject, "few"), (knee.Subject, "all")])
def test_subject_refuses_lesions_that_it_cannot_have(make, presence):
    with pytest.raises(InputError, match="lesions"):
        make(0, 64, presence)


def test_labels_number_lesions_where_half_of_their_cover_is_reached():
    lesions = [Lesion((0, 0, 0), (1, 1, 1), strength, 1.0, False) for strength in (0.8, 0.5)]
    covers = torch.tensor([[[[0.0, 0.39, 0.41, 0.8]]], [[[0.26, 0.24, 0.0, 0.5]]]])
    layers = [Layer("lesion", cover) for cover in covers]
    assert label_lesions(lesions, layers).tolist() == [[[2, 0, 1, 2]]]


def test_brain_without_nilearn_names_the_extra(monkeypatch):
    monkeypatch.setattr(template, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install mrisem\[demo\]"):
        template._template_file("t1")
    assert importlib.util.find_spec("nilearn") is not None


def test_knee_fat_suppression_darkens_fat_and_marrow():
    subject = knee.Subject(7, 96)
    layers = subject._layers((0.0,), (96, 96))
    plain = subject.images("CORPD_FBK", [0.0])[0]
    suppressed = subject.images("CORPDFS_FBK", [0.0])[0]
    marrow = next(layer for layer in layers if layer.tissue == "marrow").cover[0] > 0.99
    muscle = next(layer for layer in layers if layer.tissue == "muscle").cover[0] > 0.99
    assert marrow.sum() > 500
    assert suppressed[marrow].mean() < 0.3 * plain[marrow].mean()
    assert plain[marrow].mean() > plain[muscle].mean()
    assert suppressed[marrow].mean() < suppressed[muscle].mean()


def test_knee_slices_vary_smoothly():
    subject = knee.Subject(1, 96)
    near = subject.images("CORPD_FBK", [0.0, 0.02, 0.6])
    assert (near[0] - near[1]).norm() < 0.5 * (near[0] - near[2]).norm()


def test_compose_later_layers_cover_earlier_ones():
    tissues = {"a": Tissue(1.0, 100, 1e9), "b": Tissue(0.5, 100, 1e9)}
    cover = torch.tensor([[[0.0, 0.5, 1.0]]])
    layers = [Layer("a", torch.ones(1, 1, 3)), Layer("b", cover)]
    image = compose(layers, tissues, Sequence(1e6, 0), torch.zeros(1, 1, 3))
    torch.testing.assert_close(image, torch.tensor([[[1.0, 0.75, 0.5]]]))


def test_compose_gives_each_tissue_its_share_of_the_fine_structure():
    tissues = {"a": Tissue(1.0, 100, 1e9, texture=0.1), "b": Tissue(0.5, 100, 1e9, texture=0.0)}
    layers = [Layer("a", torch.ones(1, 1, 3)), Layer("b", torch.tensor([[[0.0, 0.0, 1.0]]]))]
    image = compose(layers, tissues, Sequence(1e6, 0), torch.tensor([[[1.0, -2.0, 3.0]]]))
    torch.testing.assert_close(image, torch.tensor([[[1.1, 0.8, 0.5]]]))


@pytest.mark.parametrize("make", SUBJECTS)
def test_fine_structure_is_shared_in_part_and_its_power_falls_with_the_square(make):
    subject = make(3, 192)
    first, second = (
        subject._grain(name, (0.1,), (192, 192))[0] for name in subject.acquisitions[:2]
    )
    shared = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
    assert 0.3 < shared < 0.7  # half of the power is the subject's, half the contrast's
    whole = subject._grain(subject.acquisitions[0], (0.1,), (384, 384))[0]
    power = torch.fft.fft2(whole).abs().square()
    frequency = torch.hypot(torch.fft.fftfreq(384)[:, None], torch.fft.fftfreq(384)[None, :])
    low, high = (power[(frequency > f) & (frequency < 1.2 * f)].mean() for f in (0.08, 0.32))
    assert float((low / high).log2() / 2) == pytest.approx(2, abs=0.2)  # two octaves
