"""Folders of diffusion models: what is loaded, what is refused and how."""

import json
import shutil
import sys

import pytest
import torch

from mrisem.errors import InputError
from mrisem.prior.generative.loading import load_diffusion

from .tiny import autoencoder, diffusers, save, scheduler, unet


def refusal(folder, **options):
    with pytest.raises(InputError) as caught:
        load_diffusion(str(folder), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def copied(with_text, tmp_path):
    return shutil.copytree(with_text, tmp_path / "copied")


def edit(file, **facts):
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def test_a_pipeline_that_diffusers_saved_is_loaded(images, tmp_path):
    pipeline = diffusers.DDIMPipeline(unet(), diffusers.DDIMScheduler())
    pipeline.save_pretrained(tmp_path)
    assert (tmp_path / "model_index.json").is_file()
    generator = load_diffusion(str(tmp_path))
    weights = dict(pipeline.unet.state_dict())
    assert all(torch.equal(v, weights[n]) for n, v in generator.unet.state_dict().items())
    assert generator.pull(generator.prepare(images), "AXT2", 0).shape == (2, 1, 16, 20)


def test_a_latent_pipeline_is_loaded_with_the_size_that_it_states(tmp_path):
    save(tmp_path, unet=unet(2, sample_size=16), vae=autoencoder(), scheduler=scheduler())
    generator = load_diffusion(str(tmp_path))
    assert generator.prepare(torch.rand(1, 40, 40)).shape == (1, 2, 16, 16)
    assert (
        load_diffusion(str(tmp_path), size="image").prepare(torch.rand(1, 40, 40)).shape[-1] == 20
    )
    assert load_diffusion(str(tmp_path), size=24).prepare(torch.rand(1, 40, 40)).shape[-1] == 12


def test_another_text_or_other_weights_have_another_fingerprint(with_text, without_text):
    prints = {load_diffusion(str(with_text), text=text).fingerprint for text in (None, "", "brain")}
    prints.add(load_diffusion(str(without_text)).fingerprint)
    assert len(prints) == 4
    assert load_diffusion(str(with_text)).fingerprint in prints


def test_missing_folder_is_refused():
    assert "generator.path must be an existing folder" in refusal("/nowhere/at/all")


def test_weights_that_do_not_ship_name_the_command_that_trains_them(monkeypatch):
    monkeypatch.setattr("mrisem.prior.checkpoints.SHIPPED", ("absent_mini",))
    assert "pretrain_diffusion_mini/run.sh OUT" in refusal("absent_mini")


def test_folder_without_safetensors_is_refused(copied):
    file = copied / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))
    assert "must hold whole safetensors weights" in refusal(copied)


def test_weights_that_do_not_fit_are_refused(copied):
    edit(copied / "unet" / "config.json", block_out_channels=[8, 16])
    assert "weights must be whole and fit config.json" in refusal(copied)
    edit(copied / "unet" / "config.json", block_out_channels=[8, 8], layers_per_block=2)
    assert "must hold all weights of the model" in refusal(copied)


def test_damaged_weights_are_refused(copied):
    file = copied / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    assert "weights must be whole" in refusal(copied)


@pytest.mark.parametrize("name", ["NoSuchScheduler", "FlowMatchEulerDiscreteScheduler", None])
def test_unknown_scheduler_is_refused(copied, name):
    edit(copied / "scheduler" / "scheduler_config.json", _class_name=name)
    message = refusal(copied)
    assert "must name a scheduler of diffusers with alphas_cumprod" in message
    assert f"got {name} in" in message


def test_unknown_network_is_refused(copied):
    edit(copied / "unet" / "config.json", _class_name="DiTTransformer2DModel")
    assert "must name one of UNet2DModel" in refusal(copied)


def test_other_channels_than_one_or_three_are_refused(tmp_path):
    unet(2).save_pretrained(tmp_path)
    scheduler().save_pretrained(tmp_path)
    assert "must have 1 or 3 channels, got 2" in refusal(tmp_path)


def test_a_network_that_takes_more_than_an_image_is_refused(tmp_path):
    save(tmp_path, unet=unet(5, 2), vae=autoencoder(), scheduler=scheduler())
    assert "must take and give 2 channels" in refusal(tmp_path)
    save(tmp_path / "classes", unet=unet(num_class_embeds=3), scheduler=scheduler())
    assert "num_class_embeds=3" in refusal(tmp_path / "classes")


@pytest.mark.parametrize("options", [{"text": "brain"}, {"guidance_scale": 3.0}])
def test_text_for_an_unconditional_model_is_refused(without_text, options):
    assert "takes no" in refusal(without_text, **options) or "takes none" in refusal(
        without_text, **options
    )


def test_text_encoder_of_another_width_is_refused(copied):
    edit(copied / "unet" / "config.json", cross_attention_dim=16)
    message = refusal(copied)
    assert "weights must be whole and fit" in message or "width 16" in message


def test_missing_tokenizer_is_refused(copied):
    shutil.rmtree(copied / "tokenizer")
    assert "needs its tokenizer" in refusal(copied)


def test_words_that_the_model_does_not_know_are_refused(with_text):
    generator = load_diffusion(str(with_text), text="T2 MRI of the liver")
    with pytest.raises(InputError, match=r"got 'liver' in .*it knows .*knee"):
        generator.pull(torch.zeros(1, 1, 16, 16), "AXT2", 0)
    generator = load_diffusion(str(with_text), text="brain " * 13)
    with pytest.raises(InputError, match="may have 12 tokens, got 13"):
        generator.pull(torch.zeros(1, 1, 16, 16), "AXT2", 0)


def test_missing_diffusers_is_said_with_the_fix(monkeypatch, with_text):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert "pip install 'mrisem[generative]'" in refusal(with_text)
