from dataclasses import replace

import pytest
import torch
from fastmri.models import VarNet

from mrisem.errors import InputError
from mrisem.networks.varnet import EndToEndVarNet
from mrisem.physics.coils import combine, root_sum_of_squares

SIZES = (2, 3, 2, 2, 3)  # cascades, channels, levels, sensitivity_channels, sensitivity_levels


def fastmri_varnet():
    return VarNet(num_cascades=2, chans=3, pools=2, sens_chans=2, sens_pools=3)


@pytest.mark.parametrize(
    ("coils", "y", "x", "lines"), [(4, 32, 32, 6), (1, 37, 26, 7), (3, 40, 27, 5)]
)
def test_varnet_combined_by_magnitude_is_fastmris(coils, y, x, lines, make_batch):
    batch = make_batch(coils=coils, y=y, x=x, lines=lines)
    reference = fastmri_varnet()
    network = EndToEndVarNet(*SIZES)
    network.varnet.load_state_dict(reference.state_dict())
    kspace = torch.view_as_real(batch.masked_kspace)
    expected = reference(kspace, batch.mask[:, None, :1, :, None], num_low_frequencies=lines)
    images = network.coil_images(batch)
    torch.testing.assert_close(root_sum_of_squares(images), expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(network(batch).image, combine(images, batch.sensitivity_maps))


def test_varnet_defaults_are_fastmris():
    ours = {name: value.shape for name, value in EndToEndVarNet().varnet.state_dict().items()}
    assert ours == {name: value.shape for name, value in VarNet().state_dict().items()}


def test_varnet_does_not_depend_on_the_scale_of_kspace(make_batch):
    batch = make_batch(coils=4, y=32, x=32)
    network = EndToEndVarNet(*SIZES)
    small = replace(batch, masked_kspace=1e-4 * batch.masked_kspace)
    torch.testing.assert_close(
        1e4 * network(small).image, network(batch).image, atol=1e-4, rtol=1e-4
    )


def test_varnet_calibrates_from_the_columns_even_when_points_are_held_out(
    make_batch, points_held_out
):
    batch = make_batch(lines=(5, 8))
    mask = points_held_out(batch)
    network = EndToEndVarNet(*SIZES)
    seen = []
    network.varnet.sens_net.register_forward_pre_hook(lambda _, args: seen.append(args))
    network(batch, mask)
    assert [lines for _, _, lines in seen] == [5, 8]
    for i, (kspace, _, _) in enumerate(seen):
        expected = torch.where(mask[i], batch.masked_kspace[i], 0)
        assert torch.equal(torch.view_as_complex(kspace)[i], expected)


def test_varnet_fully_sampled_calibrates_from_everything(make_batch):
    batch = make_batch()
    full = replace(batch, mask=torch.ones_like(batch.mask))
    seen = []
    network = EndToEndVarNet(*SIZES)
    network.varnet.sens_net.register_forward_pre_hook(lambda _, args: seen.append(args[2]))
    assert network(full).image.isfinite().all()
    assert seen == [26]


def test_varnet_without_calibration_lines_says_so(make_batch):
    batch = make_batch(lines=(4, 0))
    with pytest.raises(InputError, match=r"mask without column 13 in a\.h5; sample calibration"):
        EndToEndVarNet(*SIZES)(batch)
