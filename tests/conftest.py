"""Fixtures that tests on every floor share."""

import importlib.util
import sys
from math import prod
from pathlib import Path

import pytest
import torch

from mrisem.config.compose import compose

RECIPE = Path(__file__).parents[1] / "experiments" / "pretrain_janus_mini" / "janus.py"
VISION = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
VISION |= {"patch_size": 16, "image_size": 384, "num_image_tokens": 576, "projection_dim": 2048}
TEXT = {"model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632}
TEXT |= {"num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 16}
TEXT |= {"vocab_size": 102400, "max_position_embeddings": 16384}
torch.set_num_threads(1)  # tests run side by side


def compose_verb(verb, *overrides):
    """Compose and check a verb's configuration as the command line does."""
    return compose(verb, map(str, overrides))


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """A folder with brain and knee subjects of scale=smoke."""
    from mrisem.verbs.simulate import run

    folder = tmp_path_factory.mktemp("simulated")
    assert run(compose_verb("simulate", "scale=smoke", f"output_dir={folder}")) == 0
    return folder


@pytest.fixture
def mrisem(monkeypatch, capfd, tmp_path):
    """Run the command line in this process: ``mrisem("bank", "data=brain")`` -> code, out, err."""
    from hydra.core.global_hydra import GlobalHydra

    from mrisem.cli import main

    monkeypatch.setenv("MRISEM_CACHE", str(tmp_path / "cache"))

    def run(*arguments):
        GlobalHydra.instance().clear()
        monkeypatch.setattr("sys.argv", ["mrisem", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return ended.value.code, out, err

    return run


@pytest.fixture(scope="session")
def janus_pro_1b(tmp_path_factory):
    """A checkpoint of Janus-Pro-1B's shape with random weights: bfloat16 shards, processor."""
    import transformers as hf

    spec = importlib.util.spec_from_file_location("janus_recipe_1b", RECIPE)
    recipe = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    folder = tmp_path_factory.mktemp("janus_pro_1b")
    processor = recipe.make_processor(recipe.make_tokenizer(["Is it good or bad?"], 400), 384, 16)
    processor.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    image = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    with torch.device("meta"):
        config = hf.JanusConfig(vision_config=VISION, text_config=TEXT, image_token_id=image)
        model = hf.JanusForConditionalGeneration(config).to(torch.bfloat16)
    model = model.to_empty(device="cpu")
    # One block of random numbers, repeated with odd strides: two billion draws would take minutes.
    block = torch.randn(2**22 + 3, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16()
    with torch.no_grad():
        for number, (name, weight) in enumerate(model.named_parameters()):
            size = prod(weight.shape)
            weight.copy_(block.roll(number).repeat(-(-size // len(block)))[:size].view_as(weight))
            if "norm" in name and name.endswith("weight"):
                weight += 1
    model.save_pretrained(folder, max_shard_size="1GB")
    yield folder
    for file in folder.glob("*.safetensors"):
        file.unlink()  # 4 GB that no later run needs
