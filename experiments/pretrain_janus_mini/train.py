"""Train the small Janus from scratch on simulated images: one command, seeded, resumable."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from degrade import draw_material, draw_pairs
from energy import LocalEnergy, cut, fit_whitening, load_energy, train_energy
from evaluate import evaluate
from gradient import alignment, area_of, attack, batch_prior, contrast_loss
from janus import Window, answer, encode, export, make_model, make_processor, make_tokenizer
from losses import dense_loss, residual_loss, word_loss
from material import load_material
from pairs import ARTEFACTS, KINDS, Pairs, add_noise, join, truths_of
from pool import load_pool
from questions import draw_sequences, sentences, tokenise
from start import parameter_groups, put_into_first_layer, unit_gain, whiten_patches
from torch import Tensor, nn
from tqdm import tqdm

HERE = Path(__file__).parent


class Trainer:
    """Everything that a training step needs, and its state between steps.

    Args:
        config: see ``config.yaml``.
        output: folder of the checkpoint of the training and its result.
        material: folder of the cached slices and of what `material.sh` made.
    """

    def __init__(self, config: dict[str, Any], output: Path, material: Path):
        self.config, self.output = config, output
        vision = config["vision"]
        tokenizer = make_tokenizer(sentences(), config["vocab_size"])
        self.processor = make_processor(tokenizer, vision["image_size"], vision["patch_size"])
        self.model = make_model(tokenizer, vision, config["text"], config["seed"])
        width, patch = vision["hidden_size"], vision["patch_size"]
        # the signed error is read off the residual stream (a norm would take its size away), before
        # the last layers: these have to make its size from it, and their gradient goes through it
        self.head = nn.ModuleDict(
            {"dense": nn.Linear(width, len(ARTEFACTS)), "residual": nn.Linear(width, patch**2)}
        )
        nn.init.zeros_(self.head["dense"].weight)
        nn.init.zeros_(self.head["dense"].bias)
        nn.init.zeros_(self.head["residual"].bias)
        self.questions = tokenise(self.processor)
        self.pool = load_pool(config["pool"], config["seed"], material)
        self.material = load_material(material, config["rounds"], config["material_size"])
        self.patch = vision["patch_size"]
        self.grid = vision["image_size"] // self.patch
        generator = torch.Generator().manual_seed(config["seed"] + 1)
        nn.init.normal_(self.head["residual"].weight, std=0.02, generator=generator)
        unit_gain(self.model, generator)
        self._start_tower(generator)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, self.head, config["weight_decay"]),
            lr=config["learning_rate"],
            betas=(0.9, 0.98),
        )
        self.step, self.log = 0, []
        self._resume()

    def _start_tower(self, generator: torch.Generator) -> None:
        """Whiten patches; let the first layer compute the local energy, where there is one."""
        if self.config["energy"] is None:
            first = cut(self._draw_alike(6 * self.config["batch"], generator), self.patch, (0, 0))[
                0
            ]
            whiten_patches(self.model, fit_whitening(first.flatten(0, 1)), generator)
            return
        settings = self.config["energy"]

        def make() -> LocalEnergy:
            own = torch.Generator().manual_seed(self.config["seed"] + 2)
            draw = partial(self._draw_alike, share=settings["material_share"])
            return train_energy(settings, self.patch, draw, own)

        energy = load_energy(self.output / "energy.pt", make)
        for parameter in put_into_first_layer(self.model, energy, generator):
            parameter.requires_grad_(False)

    def run(self, stop_after: int | None) -> bool:
        """Train up to the configured step, or ``stop_after``; True when training is complete."""
        last = min(self.config["steps"], stop_after or self.config["steps"])
        self.model.train()
        with tqdm(total=self.config["steps"], initial=self.step, desc="training") as bar:
            while self.step < last:
                losses = self._train_step()
                self.step += 1
                bar.update()
                bar.set_postfix(losses)
                if self.step % self.config["save_every"] == 0 or self.step == last:
                    self.log.append({"step": self.step, **losses})
                    self._save()
        self.model.eval()
        return self.step == self.config["steps"]

    def _train_step(self) -> dict[str, float]:
        """One batch; its random numbers depend on the seed and the step alone."""
        generator = torch.Generator().manual_seed(self.config["seed"] * 1_000_003 + self.step)
        if self.step < self.config["tower_steps"]:
            return self._tower_step(generator)
        return self._language_step(generator)

    def _tower_step(self, generator: torch.Generator) -> dict[str, float]:
        """Everything learns, on a part of the token grid, which is several times faster."""
        window = self._draw_window(generator)
        pairs = self._draw(self.config["batch"], generator)
        both = join([pairs, truths_of(pairs)])
        asked = torch.randperm(len(both), generator=generator)[: len(pairs) // 2]
        questions = draw_sequences(
            self.questions, both.choose(asked), window.side**2, False, generator
        )
        image = pairs.image.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config["autocast"]):
            seen, hidden = encode(self.model, image, window)
            clean, truths = encode(self.model, pairs.truth, window)
            tokens = torch.cat([seen, clean])
            logits = answer(self.model, tokens[asked], questions.ids, questions.positions)
            dense = self.head["dense"](tokens)
            residual = self.head["residual"](hidden[self.config["residual_level"]])
        losses = {
            "word": word_loss(logits, questions.labels),
            "dense": dense_loss(dense, both, window, self.patch, self.grid),
            "residual": residual_loss(residual, pairs, window, self.patch, self.grid),
        }
        prior, cosines = self._prior_losses(hidden, truths, image, pairs, window)
        losses |= prior
        self._update(losses)
        return {name: round(loss.item(), 4) for name, loss in losses.items()} | cosines

    def _language_step(self, generator: torch.Generator) -> dict[str, float]:
        """The tower rests; aligner and language model learn from whole images."""
        pairs = self._draw(self.config["batch_whole"], generator)
        both = join([pairs, truths_of(pairs)])
        clean = torch.rand(len(pairs), generator=generator) < self.config["clean_share"]
        shown = both.choose(torch.arange(len(pairs)) + len(pairs) * clean)
        questions = draw_sequences(self.questions, shown, self.grid**2, True, generator)
        with torch.no_grad():
            tokens, _ = encode(self.model, shown.image)
        logits = answer(self.model, tokens, questions.ids, questions.positions)
        losses = {"word": word_loss(logits, questions.labels)}
        self._update(losses)
        return {name: round(loss.item(), 4) for name, loss in losses.items()}

    def _prior_losses(
        self,
        seen: dict[int, Tensor],
        truths: dict[int, Tensor],
        image: Tensor,
        pairs: Pairs,
        window: Window,
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """What asks the prior to be of use: its contrast, and later its gradient.

        Args:
            seen: the images' tokens at each level.
            truths: those of their truths.
            image: leaf of the graph of ``seen``.
            pairs: the images.
            window: the part of the token grid that was encoded.

        Returns:
            losses, and mean cosines of gradient and error to be shown.
        """
        shares, n, weights = self._shares(), len(pairs), self.config["levels"]
        levels = {level: torch.cat([seen[level], truths[level]]) for level in weights}
        odds, prior = batch_prior(levels, weights, pairs.error)
        losses, cosines = {"contrast": contrast_loss(odds, pairs.error)}, {}
        if shares["alignment"]:
            area = area_of(window, self.patch, self.grid * self.patch, image.shape)
            cosine, moved = alignment(prior[:n], image, pairs.truth, pairs.error, area)
            losses["alignment"] = (1 - cosine).sum() / n
            real = pairs.kind[moved] == KINDS.index("reconstruction")
            for name, chosen in (("cosine", ~real), ("cosine_real", real)):
                cosines[name] = round(cosine[chosen].mean().item(), 3) if chosen.any() else 0.0
        if shares["attack"]:
            losses["attack"] = self._attack_loss(prior[:n], image, pairs, window)
        return losses, cosines

    def _shares(self) -> dict[str, float]:
        """Weights of the losses; the gradient is bent once there are features to bend."""
        shares = dict(self.config["ingredients"])
        if self.step < self.config["gradient_from"]:
            shares |= {"alignment": 0.0, "attack": 0.0}
        return shares

    def _draw(self, n: int, generator: torch.Generator) -> Pairs:
        """A batch of degraded images, half of it at times what real methods made, with noise."""
        config = self.config
        share = float(torch.rand((), generator=generator))
        if "train" not in self.material or share > config["material_share"]:
            pairs = draw_pairs(self.pool["train"], config["sizes"], n, generator)
        else:
            pairs = self._draw_alike(n, generator)
        noise = config["noise"] if self.step < config["tower_steps"] else 0.0
        return add_noise(pairs, noise, generator)

    def _draw_alike(self, n: int, generator: torch.Generator, share: float = 0.5) -> Pairs:
        """Images of the encoder's size: ``share`` of them made by real methods, where there are."""
        size = self.config["material_size"]
        if "train" not in self.material:
            return draw_pairs(self.pool["train"], [size], n, generator)
        made = draw_pairs(self.pool["train"], [size], n - round(share * n), generator)
        return join([made, draw_material(self.material["train"], round(share * n), generator)])

    def _attack_loss(self, prior: Tensor, image: Tensor, pairs: Pairs, window: Window) -> Tensor:
        """Logistic loss of images that were moved to please the prior: they are still images."""
        (gradient,) = torch.autograd.grad(prior.sum(), image, retain_graph=True)
        attacked = attack(image.detach(), gradient, self.config["attack_radius"])
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config["autocast"]):
            _, hidden = encode(self.model, torch.cat([attacked, pairs.truth]), window)
        levels = {level: hidden[level] for level in self.config["levels"]}
        odds, _ = batch_prior(levels, self.config["levels"], pairs.error)
        return contrast_loss(odds, pairs.error)

    def _draw_window(self, generator: torch.Generator) -> Window:
        side = self.config["window"]
        top, left = torch.randint(self.grid - side + 1, (2,), generator=generator).tolist()
        return Window(top, left, side)

    def _update(self, losses: dict[str, Tensor]) -> None:
        """One optimiser step.

        The gradient of `alignment` has a norm of its own: it is hundreds of times smaller than that
        of the others together and would not be heard.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        shares, weights = self.config["ingredients"], self._trained()
        bent = losses.pop("alignment", None)
        own = None
        if bent is not None:
            own = torch.autograd.grad(bent, weights, retain_graph=True, allow_unused=True)
        torch.stack([shares[name] * loss for name, loss in losses.items()]).sum().backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        if own is not None:
            losses["alignment"] = bent
            norm = torch.stack([g.norm() for g in own if g is not None]).norm().clamp_min(1e-8)
            for weight, gradient in zip(weights, own, strict=True):
                if gradient is not None:
                    push = shares["alignment"] / norm * gradient
                    weight.grad = push if weight.grad is None else weight.grad + push
        self.optimizer.step()

    def _trained(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _learning_rate(self) -> float:
        """In each of the two phases: linear warm-up, linear to zero over the last 40 %."""
        config, first, last = self.config, 0, self.config["tower_steps"]
        if self.step >= last:
            first, last = last, config["steps"]
        step, n = self.step - first, last - first
        return config["learning_rate"] * min(
            1.0, (step + 1) / config["warmup"], (1 - step / n) / 0.4
        )

    def _save(self) -> None:
        state = {
            "config": self.config,
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
        state = torch.load(file, weights_only=True)
        if state["config"] != self.config:
            raise SystemExit(f"{file} is of another configuration; choose another --output")
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
    parser.add_argument("--stop-after", type=int, help="end early; the same command goes on")
    return parser.parse_args()


def main() -> None:
    """Train, export to ``OUTPUT/janus_mini``, evaluate into ``OUTPUT/results.json``."""
    arguments = _arguments()
    config = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))
    torch.set_num_threads(config["threads"])
    arguments.output.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, arguments.output, arguments.material or arguments.output)
    if not trainer.run(arguments.stop_after):
        print(f"stopped after step {trainer.step}; the same command without --stop-after goes on")
        return
    export(trainer.model, trainer.processor, arguments.output / "janus_mini")
    evaluate(trainer, arguments.output)
    print(f"checkpoint in {arguments.output / 'janus_mini'}")


if __name__ == "__main__":
    main()
