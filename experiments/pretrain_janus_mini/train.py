"""Train the small Janus from scratch on simulated images: one command, seeded, resumable."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from degrade import FULL, draw_material, draw_pairs
from energy import LocalEnergy, cut, fit_whitening, load_energy, train_energy
from evaluate import evaluate
from janus import (
    answer,
    encode,
    export,
    load_weights,
    make_model,
    make_processor,
    make_tokenizer,
)
from losses import dense_loss, error_loss, make_heads, read_loss, residual_loss, word_loss
from material import load_material
from pairs import Pairs, join, truths_of
from pool import load_pool
from questions import draw_sequences, sentences, tokenise
from start import first_layer, parameter_groups, put_into_first_layer, unit_gain, whiten_patches
from torch import Tensor, nn
from tqdm import tqdm

HERE = Path(__file__).parent


class Trainer:
    """Everything that a training step needs, and its state between steps.

    Args:
        config: see ``config.yaml``.
        output: folder of the checkpoint of the training and its result.
        material: folder of the cached slices and of what `material.sh` made.
        start: checkpoint whose weights training goes on from; None: from zero.
        first_step: steps that lie behind ``start``, whose heads and optimiser are not kept.
    """

    def __init__(
        self,
        config: dict[str, Any],
        output: Path,
        material: Path,
        start: Path | None = None,
        first_step: int = 0,
    ):
        self.config, self.output = config, output
        vision = config["vision"]
        tokenizer = make_tokenizer(sentences(), config["vocab_size"])
        self.processor = make_processor(tokenizer, vision["image_size"], vision["patch_size"])
        self.model = make_model(tokenizer, vision, config["text"], config["seed"])
        self.questions = tokenise(self.processor)
        self.pool = load_pool(config["pool"], config["seed"], material)
        self.material = load_material(material, config["rounds"], config["material_size"])
        self.patch = vision["patch_size"]
        self.grid = vision["image_size"] // self.patch
        generator = torch.Generator().manual_seed(config["seed"] + 1)
        self.head = make_heads(vision["hidden_size"], self.patch, generator)
        unit_gain(self.model, generator)
        if start is None:
            self._start_tower(generator)
        else:
            self.model.load_state_dict(load_weights(start))
        if config["energy"] is not None:
            for parameter in first_layer(self.model):
                parameter.requires_grad_(False)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device)
        self.head.to(self.device)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, self.head, config["weight_decay"]),
            lr=config["learning_rate"],
            betas=(0.9, 0.98),
        )
        self.end = sum(phase["steps"] for phase in config["phases"])
        if first_step > self.end:
            raise SystemExit(f"--step must be at most {self.end}, all steps, got {first_step}")
        self.step, self.log = first_step, []
        self.start = {"checkpoint": None if start is None else str(start), "step": first_step}
        self._resume()

    def _start_tower(self, generator: torch.Generator) -> None:
        """Whiten patches; let the first layer compute the local energy, where there is one."""
        if self.config["energy"] is None:
            drawn = self._draw_alike(6 * self.config["batch"], generator)
            patches, _ = cut(drawn, self.patch, (0, 0))
            whiten_patches(self.model, fit_whitening(patches.flatten(0, 1)), generator)
            return
        settings = self.config["energy"]

        def make() -> LocalEnergy:
            own = torch.Generator().manual_seed(self.config["seed"] + 2)
            draw = partial(self._draw_alike, share=settings["material_share"])
            return train_energy(settings, self.patch, draw, own)

        energy = load_energy(self.output / "energy.pt", make)
        put_into_first_layer(self.model, energy, generator)

    def run(self, stop_after: int | None) -> bool:
        """Train up to the configured step, or ``stop_after``; True when training is complete.

        On a GPU where there is one; images are drawn on the CPU, and the model ends there.
        """
        last = min(self.end, stop_after or self.end)
        self.model.train()
        with tqdm(total=self.end, initial=self.step, desc="training") as bar:
            while self.step < last:
                losses = self._train_step()
                self.step += 1
                bar.update()
                bar.set_postfix(losses)
                if self.step % self.config["save_every"] == 0 or self.step == last:
                    self.log.append({"step": self.step, **losses})
                    self._save()
        self.model.eval().cpu()
        self.head.cpu()
        return self.step == self.end

    def _train_step(self) -> dict[str, float]:
        """One batch; its random numbers depend on the seed and the step alone."""
        generator = torch.Generator().manual_seed(self.config["seed"] * 1_000_003 + self.step)
        if self._phase()["learns"] == "tower":
            return self._tower_step(generator)
        return self._language_step(generator)

    def _phase(self) -> dict[str, Any]:
        """Return the phase at hand, and as ``done`` how many of its steps lie behind."""
        first = 0
        for phase in self.config["phases"]:
            if self.step < first + phase["steps"]:
                return phase | {"done": self.step - first}
            first += phase["steps"]
        raise IndexError(f"step must be below {first}, got {self.step}")

    def _tower_step(self, generator: torch.Generator) -> dict[str, float]:
        """The tower learns: linear heads read answers and errors off its tokens."""
        shown = self._draw(self.config["batch"], generator)
        size = self.grid * self.patch
        tokens, hidden = encode(self.model, shown.image.to(self.device))
        mean, level = tokens.mean(1), hidden[self.config["residual_level"]]
        losses = {
            "read": read_loss(self.head["read"](mean), shown),
            "error": error_loss(self.head["error"](mean), shown),
            "dense": dense_loss(self.head["dense"](tokens), shown, size, self.patch),
            "residual": residual_loss(self.head["residual"](level), shown, size, self.patch),
        }
        return self._update(losses)

    def _language_step(self, generator: torch.Generator) -> dict[str, float]:
        """The tower rests: aligner and language model learn to say what it sees."""
        shown = self._draw(self.config["batch"], generator)
        asked = draw_sequences(self.questions, shown, generator)
        with torch.no_grad():
            tokens, _ = encode(self.model, shown.image.to(self.device))
        logits = answer(self.model, tokens, asked.ids, asked.positions, asked.turns)
        return self._update({"word": word_loss(logits, asked.labels)})

    def _draw(self, n: int, generator: torch.Generator) -> Pairs:
        """Degraded images or their truths; at times half of them is what real methods made."""
        if float(torch.rand((), generator=generator)) < self._phase()["material_share"]:
            pairs = self._draw_alike(n, generator, full=self._phase()["full_share"])
        else:
            sizes, full = self.config["sizes"], self._phase()["full_share"]
            pairs = draw_pairs(self.pool["train"], sizes, n, generator, full)
        clean = torch.rand(n, generator=generator) < self.config["clean_share"]
        return join([pairs, truths_of(pairs)]).choose(torch.arange(n) + n * clean)

    def _draw_alike(
        self, n: int, generator: torch.Generator, share: float = 0.5, full: float = FULL
    ) -> Pairs:
        """Images of the encoder's size: ``share`` of them made by real methods, where there are."""
        size = self.config["material_size"]
        if "train" not in self.material:
            return draw_pairs(self.pool["train"], [size], n, generator, full)
        n_real = round(share * n)
        made = draw_pairs(self.pool["train"], [size], n - n_real, generator, full)
        return join([made, draw_material(self.material["train"], n_real, generator, full)])

    def _update(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """One optimiser step; returns the losses, to be shown."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        shares = self.config["ingredients"]
        torch.stack([shares[name] * loss for name, loss in losses.items()]).sum().backward()
        nn.utils.clip_grad_norm_(self._trained(), 1.0)
        self.optimizer.step()
        return {name: round(loss.item(), 4) for name, loss in losses.items()}

    def _trained(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _learning_rate(self) -> float:
        """In each phase: linear warm-up, linear to zero over the last 40 %."""
        phase, warmup = self._phase(), self.config["warmup"]
        rest = 1 - phase["done"] / phase["steps"]
        return self.config["learning_rate"] * min(1.0, (phase["done"] + 1) / warmup, rest / 0.4)

    def _save(self) -> None:
        state = {
            "config": self.config,
            "start": self.start,
            "step": self.step,
            "log": self.log,
            "model": self.model.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = self.output / "training.part"
        torch.save(state, partial)
        partial.replace(self.output / "training.pt")

    def _resume(self) -> None:
        file = self.output / "training.pt"
        if not file.is_file():
            return
        state = torch.load(file, map_location="cpu", weights_only=True)
        if (state["config"], state["start"]) != (self.config, self.start):
            raise SystemExit(
                f"{file} is of another configuration or --start; choose another --output"
            )
        self.step, self.log = state["step"], state["log"]
        self.model.load_state_dict(state["model"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("outputs/pretrain_janus_mini"))
    parser.add_argument("--material", type=Path, help="default: the output folder")
    parser.add_argument("--config", type=Path, default=HERE / "config.yaml")
    parser.add_argument(
        "--smoke", dest="config", action="store_const", const=HERE / "smoke.yaml", help="seconds"
    )
    parser.add_argument("--start", type=Path, help="go on from this checkpoint's weights, ...")
    parser.add_argument("--step", type=int, default=0, help="... behind which so many steps lie")
    parser.add_argument("--stop-after", type=int, help="end early; the same command goes on")
    arguments = parser.parse_args()
    if arguments.step and arguments.start is None:
        parser.error("--step needs --start: the checkpoint behind which these steps lie")
    return arguments


def main() -> None:
    """Train, export to ``OUTPUT/janus_mini``, evaluate into ``OUTPUT/results.json``."""
    arguments = _arguments()
    config = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))
    torch.set_num_threads(config["threads"])
    arguments.output.mkdir(parents=True, exist_ok=True)
    material = arguments.material or arguments.output
    trainer = Trainer(config, arguments.output, material, arguments.start, arguments.step)
    if not trainer.run(arguments.stop_after):
        print(f"stopped after step {trainer.step}; the same command without --stop-after goes on")
        return
    export(trainer.model, trainer.processor, arguments.output / "janus_mini")
    evaluate(trainer, arguments.output)
    print(f"checkpoint in {arguments.output / 'janus_mini'}")


if __name__ == "__main__":
    main()
