import pytest
import torch

from mrisem.errors import InputError
from mrisem.prior.image.builder import ImagePriorBuilder
from mrisem.prior.image.building import build_bank
from mrisem.prior.image.prior import SemanticPrior


def load(linear, folder, **options):
    return ImagePriorBuilder(lambda: linear, folder, **options).load_encoder("cpu")


def test_builder_takes_some_levels_of_an_encoder_that_does_not_let_them_be_chosen(linear, tmp_path):
    some, image = load(linear, tmp_path, levels=[2]), torch.rand(1, 8, 8)
    assert (some.levels, some.widths) == ((2,), (6,))
    torch.testing.assert_close(some(image), linear(image)[1:])


def test_builder_lets_the_encoder_choose_levels_where_it_can(linear, tmp_path):
    calls = []

    def make(levels=(1, 2)):
        calls.append(levels)
        encoder = type(linear)()
        encoder.levels, encoder.widths = tuple(levels), (6,) * len(levels)
        return encoder

    assert ImagePriorBuilder(make, tmp_path, levels=[2]).load_encoder("cpu").levels == (2,)
    assert ImagePriorBuilder(make, tmp_path).load_encoder("cpu").levels == (1, 2)
    assert calls == [[2], (1, 2)]


def test_builder_takes_64_components_where_the_embedding_is_as_wide(linear, tmp_path):
    linear.widths = (6, 65)
    facts, _ = ImagePriorBuilder(lambda: linear, tmp_path).recipe(linear, torch.device("cpu"))
    assert facts["components"] == [6, 64]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"levels": [3]}, r"among the encoder's levels \[1, 2\], got \[3\]"),
        (
            {"level_weights": [1.0]},
            r"level_weights needs one entry for each of the levels \[1, 2\]",
        ),
        ({"components": [3, 3, 3]}, "components needs one entry"),
        ({"levels": [1], "components": [3, 3]}, "components needs one entry"),
    ],
)
def test_builder_refuses_options_for_other_levels(linear, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        load(linear, tmp_path, **options)


class Images(list):
    """Auxiliary images, and the data that gives them."""

    reconstructed_acquisitions = ("AXT1", "AXT2")
    fingerprint = "images"

    def auxiliary_slices(self, acquisition, contrast):
        return self

    def describe(self):
        return {"n_slices": len(self)}


def test_contents_name_the_banks_without_building_them(linear, pairs, tmp_path):
    loads = []

    def make():
        loads.append(1)
        return linear

    builder = ImagePriorBuilder(make, tmp_path, components=[3, 3], level_weights=[1, 1])
    data, device = Images(pairs), torch.device("cpu")
    contents = builder.contents(data, device)
    assert list(contents) == ["prior AXT1", "prior AXT2"]
    assert not list(tmp_path.iterdir())
    assert builder(data, device).keys() == {"AXT1", "AXT2"}
    assert len(loads) == 1
    (file,) = tmp_path.glob("*.safetensors")
    assert {file.stem} == set(contents.values())
    other = ImagePriorBuilder(make, tmp_path, components=[3, 2], level_weights=[1, 1])
    assert other.contents(data, device)["prior AXT1"] != file.stem


def test_builder_continues_an_interrupted_bank_and_removes_its_state(linear, pairs, tmp_path):
    class Stopped(KeyboardInterrupt):
        pass

    class Stopping(type(linear)):
        calls = 0

        def __call__(self, magnitude):
            self.calls += 1
            if self.calls == 2:
                raise Stopped
            return super().__call__(magnitude)

    data, device = Images(pairs), torch.device("cpu")
    encoder = Stopping()
    builder = ImagePriorBuilder(lambda: encoder, tmp_path, components=[3, 3])
    with pytest.raises(Stopped):
        builder.find_bank(encoder, data, device)
    (state,) = tmp_path.glob("*.unfinished")
    bank, path = builder.find_bank(encoder, data, device)
    assert encoder.calls == 3  # one batch: the first pass is not made again
    assert path.stem == state.stem
    assert not state.exists()
    expected, _ = ImagePriorBuilder(lambda: linear, tmp_path / "b", components=[3, 3]).find_bank(
        linear, data, device
    )
    assert torch.equal(bank.levels[1].entries, expected.levels[1].entries)
    assert bank.description == expected.description


@pytest.mark.parametrize("weights", [(0.005, 0.5, 1), (1, 1)])
def test_level_weights_are_by_default_the_papers_for_three_levels_else_one(
    linear, pairs, tmp_path, weights
):
    class Encoder(type(linear)):
        levels = tuple(range(1, len(weights) + 1))
        widths = (6,) * len(weights)

    encoder, image = Encoder(), pairs[0][1][None]
    bank = build_bank(encoder, pairs, [3] * len(weights), {})
    losses = ImagePriorBuilder(Encoder, tmp_path).make_prior(encoder, bank).losses(image)
    parts = [w * losses[f"semantic_{i}"] for i, w in enumerate(weights, 1)]
    torch.testing.assert_close(losses["semantic"], sum(parts))
    if len(weights) == 3:
        torch.testing.assert_close(SemanticPrior(encoder, bank).losses(image), losses)


def test_negative_target_steers_away_from_the_positives(linear, bank, pairs, tmp_path):
    positives = torch.stack([pair[0] for pair in pairs])
    straight, turned = (
        ImagePriorBuilder(lambda: linear, tmp_path, target=target)
        .make_prior(linear, bank)
        .losses(positives)
        for target in ("positive", "negative")
    )
    assert (straight["semantic"] < turned["semantic"]).all()
    torch.testing.assert_close(straight["positives_1"], turned["negatives_1"])
    torch.testing.assert_close(straight["negatives_1"], turned["positives_1"])


def test_shuffled_target_deals_the_labels_anew(linear, bank, pairs, tmp_path):
    builder = ImagePriorBuilder(lambda: linear, tmp_path, target="shuffled")
    straight, dealt = bank.levels[1], builder.make_prior(linear, bank).bank.levels[1]
    assert dealt.n_positives == straight.n_positives
    order = torch.cdist(dealt.entries, straight.entries).argmin(1)
    assert sorted(order.tolist()) == list(range(len(straight.entries)))
    torch.testing.assert_close(dealt.entries, straight.entries[order])
    moved = (order[: straight.n_positives] >= straight.n_positives).sum()
    assert 0 < moved < straight.n_positives  # some of either side, so neither side has a meaning


def test_random_target_pulls_along_one_direction_that_no_image_decides(
    linear, bank, pairs, tmp_path
):
    builder = ImagePriorBuilder(lambda: linear, tmp_path, target="random")
    prior = builder.make_prior(linear, bank)
    wanted, unwanted = prior.bank.levels[1].entries
    torch.testing.assert_close(wanted, -unwanted)
    tokens = wanted.reshape(-1, bank.levels[1].components.shape[1])
    torch.testing.assert_close(tokens.norm(dim=1), torch.ones(len(tokens)))
    # softplus((-s - s) / tau): InfoNCE of one positive with similarity s and its opposite
    image = pairs[0][0][None]
    s = prior.similarities(image)[1][:, 0]
    expected = torch.nn.functional.softplus(-2 * s / 0.07)
    torch.testing.assert_close(prior.losses(image)["semantic_1"], expected)
    torch.testing.assert_close(bank.turned("random").levels[1].entries[0], wanted)
