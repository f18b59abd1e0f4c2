"""Train the small diffusion model, and beside it a plain network: seeded, resumable."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from evaluate import evaluate
from material import Slice, draw_batch, load_material, vocabulary
from networks import Plain, make_parts, make_scheduler, save
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from mrisem.progress import progress

Predict = Callable[[Tensor, Tensor, list[str]], Tensor]  # noisy, times, texts -> noise


class Diffusion(nn.Module):
    """The parts that learn, as one module.

    Args:
        parts: see `make_parts`.
    """

    def __init__(self, parts: dict[str, Any]) -> None:
        super().__init__()
        self.parts = parts
        self.unet, self.text_encoder = parts["unet"], parts["text_encoder"]

    def forward(self, noisy: Tensor, times: Tensor, texts: list[str]) -> Tensor:
        """Predict the noise."""
        length = self.parts["tokenizer"].model_max_length
        ids = self.parts["tokenizer"](
            texts, padding="max_length", max_length=length, return_tensors="pt"
        )["input_ids"]
        states = self.text_encoder(input_ids=ids).last_hidden_state
        predicted: Tensor = self.unet(noisy, times, states).sample
        return predicted


class WithoutText(nn.Module):
    """The plain network, called as the other one is."""

    def __init__(self, plain: Plain) -> None:
        super().__init__()
        self.plain = plain
        self.register_buffer("sigmas", (1 - make_scheduler().alphas_cumprod).sqrt(), False)

    def forward(self, noisy: Tensor, times: Tensor, texts: list[str]) -> Tensor:
        """Predict the noise; the texts are not read."""
        predicted: Tensor = self.plain(noisy, self.sigmas[times])
        return predicted


class Trainer:
    """Adam on the error of the predicted noise, and its state between steps.

    Args:
        model: see `Predict`.
        config: see ``config.yaml``.
        file: state of the training.
        slices: what is trained on.
    """

    def __init__(
        self, model: nn.Module, config: dict[str, Any], file: Path, slices: list[Slice]
    ) -> None:
        self.model, self.config, self.file, self.slices = model, config, file, slices
        self.scheduler, self.step, self.seconds = make_scheduler(), 0, 0.0
        self.optimizer = torch.optim.AdamW(
            model.parameters(), weight_decay=config["weight_decay"], betas=(0.9, 0.99)
        )
        self.average = {name: weight.clone() for name, weight in model.state_dict().items()}
        if file.is_file():
            self._resume()

    def run(self, stop_after: int | None = None) -> bool:
        """Train up to the configured step, or ``stop_after``; True when training is complete."""
        end = self.config["steps"]
        last = end if stop_after is None else min(end, stop_after)
        self.model.train()
        with progress(f"training {self.file.stem}", end, "steps", self.step) as bar:
            while self.step < last:
                began = time.process_time()
                self._train_step()
                self.step += 1
                self.seconds += time.process_time() - began
                bar.advance()
                if self.step % self.config["save_every"] == 0 or self.step == last:
                    self._save()
        self.model.load_state_dict(self.average)
        self.model.eval()
        return self.step == end

    def _train_step(self) -> None:
        """One batch; its random numbers depend on the seed and the step alone."""
        generator = torch.Generator().manual_seed(self.config["seed"] * 1_000_003 + self.step)
        settings = self.config["crop" if self.step % 2 else "whole"]
        images, texts = draw_batch(self.slices, settings, generator)
        # squared: more draws at the small times, at which a nearly finished image is judged
        shares = torch.rand(len(images), generator=generator).square()
        times = (shares * self.scheduler.config.num_train_timesteps).long()
        noise = torch.randn(images.shape, generator=generator)
        loss = mse_loss(
            self.model(self.scheduler.add_noise(images, noise, times), times, texts), noise
        )
        for group in self.optimizer.param_groups:
            warm = min(1.0, (self.step + 1) / self.config["warmup"])
            group["lr"] = self.config["learning_rate"] * warm
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        # averaged weights are good at every moment, so that no step needs to be the last
        memory = min(self.config["memory"], (self.step + 1) / (self.step + 10))
        for name, weight in self.model.state_dict().items():
            self.average[name].lerp_(weight, 1 - memory)

    def _resume(self) -> None:
        state = torch.load(self.file, weights_only=True)
        if state["config"] | {"steps": 0} != self.config | {"steps": 0}:  # more steps go on
            raise SystemExit(f"{self.file} is of another configuration; choose another --output")
        self.step, self.seconds, self.average = state["step"], state["seconds"], state["average"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _save(self) -> None:
        partial = self.file.with_suffix(".part")
        state = {name: getattr(self, name).state_dict() for name in ("model", "optimizer")}
        facts = {"config": self.config, "step": self.step, "seconds": self.seconds}
        facts["average"] = self.average
        torch.save({**facts, **state}, partial)
        partial.replace(self.file)


def main() -> None:
    """Train both; write ``OUTPUT/diffusion_mini`` and ``OUTPUT/results.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("outputs/pretrain_diffusion_mini"))
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "config.yaml")
    parser.add_argument("--stop-after", type=int, help="end early; the same command goes on")
    parser.add_argument("--export", action="store_true", help="as they are now: no training")
    arguments = parser.parse_args()
    config = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))
    torch.set_num_threads(config["threads"])
    material = load_material(arguments.output)
    models = {
        "diffusion": Diffusion(make_parts(config, vocabulary())),
        "plain": WithoutText(Plain(**config["plain"], seed=config["seed"])),
    }
    trainers = {
        name: Trainer(model, config, arguments.output / f"{name}.pt", material["train"])
        for name, model in models.items()
    }
    for name, trainer in trainers.items():
        if not trainer.run(0 if arguments.export else arguments.stop_after):
            print(f"{name} stopped after step {trainer.step}; without --stop-after it goes on")
    save(models["diffusion"].parts, arguments.output / "diffusion_mini")
    facts = {
        name: {
            "steps": trainer.step,
            "cpu_seconds": round(trainer.seconds),
            "weights": sum(p.numel() for p in models[name].parameters()),
        }
        for name, trainer in trainers.items()
    }
    results = {"trained": facts, **evaluate(models, material, config)}
    text = json.dumps(results, indent=1)
    (arguments.output / "results.json").write_text(f"{text}\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
