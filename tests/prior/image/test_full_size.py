"""Janus-Pro-1B's real sizes with random weights: what loading its vision tower costs."""

import json
import subprocess
import sys
from math import prod

import pytest
import torch
import transformers as hf

LEVELS = (1, 13, 24)
CONFIG = {  # config.json of Janus-Pro-1B; the rest are the defaults of JanusConfig
    "vision_config": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 16,
        "image_size": 384,
        "num_image_tokens": 576,
        "projection_dim": 2048,
    },
    "text_config": {
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "vocab_size": 102400,
        "max_position_embeddings": 16384,
    },
}
# Loads in a process of its own and prints what it took. Peak memory is counted from after the
# imports, which alone need about half a GiB.
LOAD = """
import json, sys, time
from pathlib import Path
import torch, transformers.models.janus.modeling_janus
from mrisem.prior.image.encoder import load_encoder

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))

before, start = memory("VmRSS"), time.perf_counter()
encoder = load_encoder(sys.argv[1], [1, 13, 24], "bfloat16")
seconds, peak = time.perf_counter() - start, memory("VmHWM") - before
magnitude = torch.rand(1, 320, 320, generator=torch.Generator().manual_seed(0))
start = time.perf_counter()
with torch.no_grad():
    outputs = encoder(magnitude)
forward = time.perf_counter() - start
torch.save((encoder.prepare(magnitude), outputs), sys.argv[2])
weights = sum(weight.nbytes for weight in encoder.parameters())
print(json.dumps({"load_s": seconds, "load_peak": peak, "forward_s": forward, "weights": weights}))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder of shards, the model in memory, and the bytes of its weights."""
    folder = tmp_path_factory.mktemp("janus_pro_1b")
    with torch.device("meta"):
        model = hf.JanusForConditionalGeneration(hf.JanusConfig(**CONFIG)).to(torch.bfloat16)
    model = model.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    # One block of random numbers, repeated with odd strides: two billion draws would take minutes.
    block = torch.randn(2**22 + 3, generator=generator).mul_(0.02).to(torch.bfloat16)
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            size = prod(weight.shape)
            weight.copy_(block.roll(number).repeat(-(-size // len(block)))[:size].view_as(weight))
    vision = model.model.vision_model
    vision.embeddings.position_ids = torch.arange(576)[None]
    model.save_pretrained(folder, max_shard_size="1GB")
    hf.JanusImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(folder)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    yield folder, vision, size
    for file in folder.glob("*.safetensors"):
        file.unlink()  # 4 GB that no later run needs


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_janus_pro_1b_tower_loads_alone_and_gives_its_levels(checkpoint, tmp_path):
    folder, vision, size = checkpoint
    assert len(list(folder.glob("model-*-of-*.safetensors"))) >= 2
    ended = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder), str(tmp_path / "levels.pt")],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    cost = json.loads(ended.stdout)
    print(f"checkpoint {size / 2**20:.0f} MiB, cost {cost}")
    assert cost["weights"] < 0.16 * size
    assert cost["load_peak"] < 0.25 * size
    pixels, levels = torch.load(tmp_path / "levels.pt")
    with torch.no_grad():
        expected = vision(pixels, output_hidden_states=True).hidden_states
    for level, states in zip(LEVELS, levels, strict=True):
        assert states.shape == (1, 576, 1024)
        assert states.dtype == torch.bfloat16
        torch.testing.assert_close(states, expected[level], rtol=0.02, atol=0.02)
