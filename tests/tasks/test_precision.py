import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from mrisem.errors import InputError
from mrisem.networks.inr import INR
from mrisem.networks.unet import Unet
from mrisem.networks.unrolled import Unrolled
from mrisem.networks.unrolled_vit import UnrolledViT
from mrisem.networks.varnet import EndToEndVarNet
from mrisem.prior.image.encoder import load_encoder
from mrisem.tasks.fitting import PerScanFit
from mrisem.tasks.network import NetworkTask

pytestmark = [  # what Lightning says, as `mrisem.verbs.application` silences it
    pytest.mark.filterwarnings("ignore:The 'predict_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*"),
]
FIT = PerScanFit(3, progress=False)


class Collect(pl.Callback):
    def on_predict_batch_end(self, trainer, module, outputs, *_):
        (self.prediction,) = outputs


def predict(network, batch, precision, fit=FIT):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    collected = Collect()
    trainer = pl.Trainer(
        callbacks=[collected],
        accelerator="cpu",
        precision=precision,
        inference_mode=False,
        enable_model_summary=False,
        **quiet,
    )
    loader = DataLoader([batch], batch_size=None)
    trainer.predict(NetworkTask(network, fit), loader, return_predictions=False)
    return collected.prediction.reconstruction.image


@pytest.mark.parametrize(
    "kind",
    [
        lambda: Unet(4, 2),
        lambda: Unrolled(2, 4, 2),
        lambda: UnrolledViT(load_encoder("janus_mini", [1]), 2, 4, 2, 3),
        lambda: INR(2, 16),
    ],
)
def test_mixed_precision_is_the_networks_alone(make_batch, kind):
    images, seen = {}, {}
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        network, dtypes = kind(), set()
        for name, weight in network.named_parameters():
            if "unet" in name or "adaptor" in name:  # untrained, they change nothing
                torch.nn.init.normal_(weight, std=0.1)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                hook = lambda _, inputs, output, dtypes=dtypes: dtypes.add(output.dtype)  # noqa: E731
                module.register_forward_hook(hook)
        images[precision] = predict(network, make_batch(), precision, fit=None)
        seen[precision] = dtypes
    assert seen == {"32-true": {torch.float32}, "bf16-mixed": {torch.bfloat16}}
    assert images["bf16-mixed"].dtype == torch.complex64
    error = (images["bf16-mixed"] - images["32-true"]).norm() / images["32-true"].norm()
    assert 0 < error < 0.02


def test_mixed_precision_is_refused_where_it_cannot_be(make_batch):
    with pytest.raises(InputError, match=r"bf16-mixed is for model=unet, unrolled and inr"):
        predict(EndToEndVarNet(1, 4, 2, 2, 2), make_batch(), "bf16-mixed")


def test_a_fit_in_mixed_precision_is_near_the_one_in_float32(make_batch):
    images = []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        images.append(predict(Unrolled(1, 4, 2), make_batch(), precision))
    assert (images[0] - images[1]).norm() / images[0].norm() < 0.05
