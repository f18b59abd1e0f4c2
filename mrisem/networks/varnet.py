"""fastMRI's end-to-end variational network, returning a complex image."""

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

    Source: Sriram et al., MICCAI 2020, arXiv:2004.06688, by fastMRI's own modules; the defaults are
    its published sizes. Its own sensitivity network serves the cascades only. The refined coil
    images are combined with the batch's maps, ``sum_c conj(S_c) x_c``, where fastMRI takes the root
    of the sum of squares: that has no phase, and the data term, the final solve and the scores of
    all methods use the same maps, so every backbone stands on one footing.

    Weights that fastMRI published load through `mrisem.networks.starts.load_start`. The network
    normalises its own input, so the scale of k-space does not matter to them.

    Args:
        cascades: number of cascades (published: 12).
        channels: width of each cascade's U-Net (published: 18).
        levels: poolings of each cascade's U-Net (published: 4).
        sensitivity_channels: width of the sensitivity network (published: 8).
        sensitivity_levels: poolings of the sensitivity network (published: 4).
    """

    mixed_precision = False  # its Fourier transforms are between real tensors, which have its dtype

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
        """Return the refined coil images, ``(batch, coil, y, x)`` complex64.

        Their root of the sum of squares is fastMRI's output. Arguments are those of `forward`.
        """
        seen = (batch.mask if mask is None else mask & batch.mask)[:, None]
        sampled = torch.view_as_real(torch.where(seen, batch.masked_kspace, 0))
        maps = self._sensitivities(sampled, seen[..., None], _calibration_lines(batch))
        kspace = sampled
        for cascade in self.varnet.cascades:
            kspace = cascade(kspace, sampled, seen[..., None], maps)
        return torch.view_as_complex(fastmri.ifft2c(kspace).contiguous())

    def _sensitivities(self, sampled: Tensor, seen: Tensor, lines: list[int]) -> Tensor:
        """Run fastMRI's sensitivity network, which takes one number of lines for a whole batch.

        The number is passed on, as the network would otherwise count it in the first row of
        ``seen``, which says nothing when points were held out one by one.
        """
        maps = {n: self.varnet.sens_net(sampled, seen, n) for n in sorted(set(lines))}
        return torch.stack([maps[n][i] for i, n in enumerate(lines)])


def _calibration_lines(batch: Batch) -> list[int]:
    """Count the calibration lines of each slice, from the columns that were acquired."""
    if not batch.mask.equal(batch.mask.any(dim=1, keepdim=True).expand_as(batch.mask)):
        raise InputError(
            "varnet estimates sensitivities from whole phase-encode columns, got a mask of single "
            f"points in {batch.info[0].file}; take model=unrolled"
        )
    lines = [calibration_lines(columns) for columns in batch.mask.any(dim=1).cpu()]
    if 0 in lines:
        raise InputError(
            "varnet estimates sensitivities from the central phase-encode columns, got a mask "
            f"without column {batch.mask.shape[-1] // 2} in {batch.info[lines.index(0)].file}; "
            "sample calibration lines (mask.calibration_lines or mask.center_fraction)"
        )
    return lines


@stacked_layer.register
def _(module: VarNetBlock, n: int) -> nn.Module:
    weight = module.dc_weight.reshape(1, 1, 1, 1)  # multiplies (slice, coil, y, x, part)
    module.dc_weight = repeated(weight, n)
    return module
