"""The training of diffusion_mini at smoke size."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers", reason="needs mrisem[generative]")
RECIPE = Path(__file__).parents[2] / "experiments" / "pretrain_diffusion_mini"


@pytest.fixture
def recipe(import_from):
    """Import one of the recipe's modules by its name."""
    return import_from("pretrain_diffusion_mini")


@pytest.fixture
def train(recipe, simulated, monkeypatch, capsys):
    """Train in a folder, whose scans are the simulated ones; gives what was printed."""

    def run(output, *arguments):
        scans = output / "simulated" / "0"
        if not scans.is_dir():
            scans.parent.mkdir(parents=True)
            scans.symlink_to(simulated)
        words = ["train.py", "--output", output, "--config", RECIPE / "smoke.yaml", *arguments]
        monkeypatch.setattr("sys.argv", [str(word) for word in words])
        recipe("train").main()
        return capsys.readouterr().out

    return run


def test_train_repeats_bit_for_bit_when_stopped_and_resumed(train, recipe, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(whole)
    assert "diffusion stopped after step 3" in train(stopped, "--stop-after", "3")
    train(stopped)
    files = [path for path in (whole / "diffusion_mini").rglob("*") if path.is_file()]
    assert {"model_index.json", "diffusion_pytorch_model.safetensors"} <= {f.name for f in files}
    for file in files:
        assert (stopped / file.relative_to(whole)).read_bytes() == file.read_bytes(), file.name
    first, second = (json.loads((f / "results.json").read_text()) for f in (whole, stopped))
    assert first["error"] == second["error"]
    assert first["trained"]["diffusion"]["steps"] == 4
    assert first["error"]["zero"]["20"] == pytest.approx(1, abs=0.05)
    # what it saved guides
    from mrisem.prior.generative.loading import load_diffusion

    generator = load_diffusion(str(whole / "diffusion_mini"))
    assert bool(generator.pull(torch.zeros(1, 1, 16, 16), "AXT2", 0).isfinite().all())
    config = torch.load(whole / "diffusion.pt", weights_only=True)["config"]
    trainer, model = recipe("train").Trainer, torch.nn.Linear(1, 1)
    with pytest.raises(SystemExit, match="another configuration"):
        trainer(model, config | {"warmup": 9}, whole / "diffusion.pt", [])


def test_texts_leave_out_every_part_and_all(recipe):
    material = recipe("material")
    part = material.Slice(torch.ones(1, 1), torch.ones(1, 1), "T2", "brain", "with lesion")
    generator = torch.Generator().manual_seed(0)
    texts = {material.draw_text(part, "aliased", generator) for _ in range(400)}
    assert {
        "",
        "MRI of the brain",
        "aliased T2 MRI of the brain with lesion",
        "T2 MRI of the brain",
    } <= texts
    words = {word for text in texts for word in text.lower().split()}
    assert words <= set(material.vocabulary())


def test_wiener_predictor_is_the_best_linear_one_of_gaussian_images(recipe):
    """White images of variance P: the noise is sigma / (abar P + sigma^2) of what is seen."""
    evaluate = recipe("evaluate")
    noisy, kept, power = torch.randn(1, 1, 8, 8), 0.4, 3.0
    found = evaluate.filtered(noisy, kept, torch.zeros(8, 8), torch.full((8, 8), power))
    expected = 0.6**0.5 / (kept * power + 0.6) * noisy
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
