"""Janus-Pro-1B's real sizes with random weights: what one step of the language route costs."""

import json
import subprocess
import sys

import pytest

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


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("checkpointing", ["yes", "no"])
def test_janus_pro_1b_language_step_stays_within_12_gib(janus_pro_1b, checkpointing):
    assert len(list(janus_pro_1b.glob("model-*-of-*.safetensors"))) >= 2
    ended = subprocess.run(
        [sys.executable, "-c", STEP, str(janus_pro_1b), checkpointing],
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
