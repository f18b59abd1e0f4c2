"""fastMRI's end-to-end variational network, with a complex image as its output."""

from __future__ import annotations

import fastmri
import torch
from fastmri.models.varnet import VarNetBlock
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.networks.stacked import repeated, stacked_layer
from mrisem.physics.coils import combine
from mrisem.physics.masks import calibration_lines
from mrisem.physics.sense import Measurement
from mrisem.types import Batch, Reconstruction


class EndToEndVarNet(nn.Module):
    """Cascades of soft data consistency and a U-Net in k-space, with learnt sensitivities.

    Source: Sriram et al., MICCAI 2020, arXiv:2004.06688; the modules are fastMRI's, the defaults
    their published sizes. Only the cascades use the maps of the sensitivity network. The refined
    coil images are combined with the batch's maps, ``sum_c conj(S_c) x_c``. fastMRI takes the root
    of the sum of squares instead, which has no phase. With the batch's maps, the data term, the
    final solve and the scores are those of all other methods.

    Weights published by fastMRI load through `mrisem.networks.starts.load_start`. The network
    normalises its own input, so the scale of k-space does not matter.

    Args:
        cascades: number of cascades (published: 12).
        channels: number of channels of each cascade's U-Net (published: 18).
        levels: number of poolings of each cascade's U-Net (published: 4).
        sensitivity_channels: number of channels of the sensitivity network (published: 8).
        sensitivity_levels: number of poolings of the sensitivity network (published: 4).
    """

    # Its Fourier transforms view real tensors of the network's dtype as complex: float32 only.
    mixed_precision = False

    def __init__(
        self,
        cascades: int = 12,
        channels: int = 18,
        levels: int = 4,
        sensitivity_channels: int = 8,
        sensitivity_levels: int = 4,
    ) -> None:
        super().__init__()
        from fastmri.models import VarNet

        self.varnet = VarNet(cascades, sensitivity_channels, sensitivity_levels, channels, levels)

    def forward(self, batch: Batch, mask: Tensor | None = None) -> Reconstruction:
        """Reconstruct a batch from the part of its k-space that ``mask`` selects, as `Unet` does.

        Raises:
            InputError: when the central column of a slice is not sampled.
        """
        zero_filled = Measurement.of(batch, mask).zero_filled
        image = combine(self.coil_images(batch, mask), batch.sensitivity_maps)
        return Reconstruction(image, (zero_filled, image))

    def coil_images(self, batch: Batch, mask: Tensor | None = None) -> Tensor:
        """Compute the refined coil images, ``(batch, coil, y, x)`` complex64.

        Their root of the sum of squares is the output of fastMRI's VarNet. The arguments are those
        of `forward`.
        """
        visible = (batch.mask if mask is None else mask & batch.mask)[:, None]
        sampled = torch.view_as_real(torch.where(visible, batch.masked_kspace, 0))
        maps = self._sensitivities(sampled, visible[..., None], _calibration_lines(batch))
        kspace = sampled
        for cascade in self.varnet.cascades:
            kspace = cascade(kspace, sampled, visible[..., None], maps)
        return torch.view_as_complex(fastmri.ifft2c(kspace).contiguous())

    def _sensitivities(self, sampled: Tensor, visible: Tensor, n_lines: list[int]) -> Tensor:
        """Run fastMRI's sensitivity network on each slice with its number of calibration lines.

        Without that number the network would count the lines in the first row of the mask. That row
        is not representative when single points are held out.
        """
        # the network takes one number for a whole batch: run it once for each number
        maps = {
            count: self.varnet.sens_net(sampled, visible, count) for count in sorted(set(n_lines))
        }
        return torch.stack([maps[count][index] for index, count in enumerate(n_lines)])


def _calibration_lines(batch: Batch) -> list[int]:
    """Count the calibration lines of each slice among all its sampled columns."""
    if not batch.mask.equal(batch.mask.any(dim=1, keepdim=True).expand_as(batch.mask)):
        raise InputError(
            "varnet estimates sensitivities from whole phase-encode columns, got a mask of single "
            f"points in {batch.info[0].file}; set model=unrolled"
        )
    lines = [calibration_lines(columns) for columns in batch.mask.any(dim=1).cpu()]
    if 0 in lines:
        raise InputError(
            "varnet needs the central phase-encode columns, from which it estimates sensitivities; "
            f"got a mask without column {batch.mask.shape[-1] // 2} in "
            f"{batch.info[lines.index(0)].file}; sample calibration lines "
            "(mask.calibration_lines or mask.center_fraction)"
        )
    return lines


@stacked_layer.register
def _(module: VarNetBlock, n: int) -> nn.Module:
    weight = module.dc_weight.reshape(1, 1, 1, 1)  # multiplies (slice, coil, y, x, part)
    module.dc_weight = repeated(weight, n)
    return module
