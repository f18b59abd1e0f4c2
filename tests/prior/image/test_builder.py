import pytest
import torch

from mrisem.errors import InputError
from mrisem.prior.image.builder import ImagePriorBuilder


def load(linear, folder, **options):
    return ImagePriorBuilder(lambda: linear, folder, **options).load_encoder("cpu")


def test_builder_takes_some_levels_of_an_encoder_that_does_not_let_them_be_chosen(linear, tmp_path):
    some, image = load(linear, tmp_path, levels=[2]), torch.rand(1, 8, 8)
    assert (some.levels, some.widths) == ((2,), (6,))
    torch.testing.assert_close(some(image), linear(image)[1:])


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
