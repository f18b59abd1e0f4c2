"""Janus-Pro-1B's real sizes with random weights: what one step of the language route costs."""

import importlib.util
import json
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
import torch
import transformers as hf

RECIPE = Path(__file__).parents[3] / "experiments" / "pretrain_janus_mini" / "janus.py"
VISION = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
VISION |= {"patch_size": 16, "image_size": 384, "num_image_tokens": 576, "projection_dim": 2048}
TEXT = {"model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632}
TEXT |= {"num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 16}
TEXT |= {"vocab_size": 102400, "max_position_embeddings": 16384}
# One loss and its gradient in a process of its own, which prints what it took. Peak memory is
# counted whole, imports and all.
STEP = """
import json, sys, time
from pathlib import Path
import torch
from mrisem.prior.language.prior import LanguagePrior
from mrisem.prior.language.loading import load_language_model
from mrisem.prior.language.prompts import Prompt
from mrisem.prior.language.bank import LanguageBank

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**20 for line in lines if line.startswith(key + ":"))

start = time.perf_counter()
encoder = load_language_model(sys.argv[1], "bfloat16", gradient_checkpointing=sys.argv[2] == "yes")
cost = {"load_s": time.perf_counter() - start, "loaded_gib": memory("VmRSS")}
generator = torch.Generator().manual_seed(0)
bank = LanguageBank(*torch.randn(2, 3, 5, encoder.width, generator=generator))
prior = LanguagePrior(encoder, Prompt("quality", "Is it good or bad?", "good", "bad"), bank)
magnitude = torch.rand(1, 320, 320, generator=generator).requires_grad_()
start = time.perf_counter()
loss = prior.losses(magnitude)["semantic"].sum()
loss.backward()
cost |= {"step_s": time.perf_counter() - start, "peak_gib": memory("VmHWM")}
cost |= {"loss": loss.item(), "gradient": magnitude.grad.norm().item(), "width": encoder.width}
print(json.dumps(cost))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder of bfloat16 shards with tokenizer and processor."""
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


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("checkpointing", ["yes", "no"])
def test_janus_pro_1b_language_step_stays_within_12_gib(checkpoint, checkpointing):
    assert len(list(checkpoint.glob("model-*-of-*.safetensors"))) >= 2
    ended = subprocess.run(
        [sys.executable, "-c", STEP, str(checkpoint), checkpointing],
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    cost = json.loads(ended.stdout)
    print(f"gradient checkpointing {checkpointing}: {cost}")
    assert cost["width"] == 2048
    assert 0 < cost["gradient"] < float("inf")
    assert cost["peak_gib"] < 12
