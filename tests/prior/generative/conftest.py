"""Folders of tiny diffusion models with random weights."""

import pytest
import torch

WORDS = ["high-quality", "t1", "t2", "flair", "mri", "of", "the", "brain", "knee", "aliased"]


@pytest.fixture(scope="session")
def parts(load_recipe):
    """The parts of a tiny diffusion_mini, weights large enough that a text changes the output."""
    pytest.importorskip("diffusers", reason="needs mrisem[generative]")
    recipe = load_recipe("pretrain_diffusion_mini/networks.py")
    network = {"channels": [8, 8], "groups": 4, "head": 4}
    text = {"width": 8, "heads": 2, "length": 12}
    made = recipe.make_parts({"seed": 0, "unet": network, "text": text}, WORDS)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in (made["unet"], made["text_encoder"]):
            for weight in part.parameters():
                if weight.ndim > 1:
                    std = 1.5 / weight[0].numel() ** 0.5
                    weight.normal_(std=std, generator=generator)
            part.eval()
    return made


@pytest.fixture(scope="session")
def with_text(parts, tmp_path_factory):
    """Folder of a model that takes text."""
    from .tiny import save

    return save(tmp_path_factory.mktemp("with_text"), **parts)


@pytest.fixture(scope="session")
def without_text(tmp_path_factory):
    """Folder of a model without text: the network in the folder itself, as it is saved alone."""
    from .tiny import scheduler, unet

    folder = tmp_path_factory.mktemp("without_text")
    unet().save_pretrained(folder)
    scheduler().save_pretrained(folder)
    return folder


@pytest.fixture
def images():
    return torch.rand(2, 16, 20, generator=torch.Generator().manual_seed(3)) * 7
