"""Train the small Janus from scratch on what `run.sh` made: seeded, resumable."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
import yaml
from energy import put_into_first_layer, train_energy
from evaluate import evaluate
from janus import export, make_model, make_processor, make_tokenizer
from losses import make_heads, tower_loss
from material import draw_material, load_material
from pool import load_pool
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import JanusForConditionalGeneration

from mrisem.adaptation.degrade import draw_pairs, draw_severity
from mrisem.adaptation.model import answer, encode
from mrisem.adaptation.pairs import Pairs, join
from mrisem.adaptation.pool import ANATOMIES
from mrisem.adaptation.questions import IGNORE, draw_sequences, sentences, tokenise

HERE = Path(__file__).parent


class Trainer:
    """Everything that a training step needs, and its state between steps.

    Args:
        config: see ``config.yaml``.
        output: folder of the material, and of the training's state.
    """

    def __init__(self, config: dict[str, Any], output: Path):
        self.config, self.file, self.step = config, output / "training.pt", 0
        vision = config["vision"]
        self.size, patch = vision["image_size"], vision["patch_size"]
        tokenizer = make_tokenizer(sentences(), config["vocab_size"])
        self.processor = make_processor(tokenizer, self.size, patch)
        self.questions = tokenise(self.processor)
        if any(len(ids) != 1 for answers in self.questions.answers for ids in answers):
            raise SystemExit("an answer must be one token, got one of several; raise vocab_size")
        self.model = make_model(tokenizer, vision, config["text"], config["seed"])
        self.pool = load_pool(config["pool"], config["seed"], output)
        self.material = load_material(output)
        generator = torch.Generator().manual_seed(config["seed"] + 1)
        self.head = make_heads(vision["hidden_size"], patch, generator)
        self.learnt = freeze(self.model) + list(self.head.parameters())
        vectors = {"params": [p for p in self.learnt if p.ndim <= 1], "weight_decay": 0.0}
        self.optimizer = torch.optim.AdamW(
            [{"params": [p for p in self.learnt if p.ndim > 1]}, vectors],
            weight_decay=config["weight_decay"],
            betas=(0.9, 0.98),
        )
        if self.file.is_file():
            self._resume()
            return
        unit_gain(self.model, generator)
        share = config["energy"]["material_share"]

        def draw(n: int, source: torch.Generator) -> Pairs:
            return self._draw_alike(share, draw_severity(n, source), source)

        energy = train_energy(config["energy"], patch, draw, generator)
        put_into_first_layer(self.model, energy, generator)

    def run(self, stop_after: int | None) -> bool:
        """Train up to the configured step, or ``stop_after``; True when training is complete."""
        end = sum(phase["steps"] for phase in self.config["phases"])
        last = min(end, stop_after or end)
        self.model.train()
        with tqdm(total=end, initial=self.step, desc="training") as bar:
            while self.step < last:
                loss = self._train_step()
                self.step += 1
                bar.update()
                bar.set_postfix(loss=round(loss, 3))
                if self.step % self.config["save_every"] == 0 or self.step == last:
                    self._save()
        self.model.eval()
        return self.step == end

    def _train_step(self) -> float:
        """One batch; its random numbers depend on the seed and the step alone."""
        generator = torch.Generator().manual_seed(self.config["seed"] * 1_000_003 + self.step)
        phase, done = self._phase()
        pairs = self._draw(phase, generator)
        with torch.set_grad_enabled(phase["learns"] == "tower"):
            tokens, levels = encode(self.model, pairs.image)
        if phase["learns"] == "tower":  # linear heads read answers and errors off its tokens
            level = levels[self.config["residual_level"]]
            loss = tower_loss(self.head, tokens, level, pairs, self.size)
        else:  # aligner and language model learn to say what it sees
            asked = draw_sequences(self.questions, pairs, generator)
            logits = answer(self.model, tokens, asked.ids, asked.positions, asked.turns)
            labels = asked.labels.flatten()
            loss = cross_entropy(logits.flatten(0, 1), labels, ignore_index=IGNORE)
        # linear warm-up, linear to zero over the last 40 %
        warm, rest = (done + 1) / self.config["warmup"], 1 - done / phase["steps"]
        for group in self.optimizer.param_groups:
            group["lr"] = self.config["learning_rate"] * min(1.0, warm, rest / 0.4)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.learnt, 1.0)
        self.optimizer.step()
        return loss.item()

    def _phase(self) -> tuple[dict[str, Any], int]:
        """Return the phase at hand, and how many of its steps lie behind."""
        done = self.step
        for phase in self.config["phases"]:
            if done < phase["steps"]:
                return phase, done
            done -= phase["steps"]
        raise IndexError(f"no step {self.step} in the configuration's phases")

    def _draw(self, phase: dict[str, Any], generator: torch.Generator) -> Pairs:
        """Draw a batch; at times half of it is what real methods made."""
        n, clean = self.config["batch"], self.config["clean_share"]
        severity = draw_severity(n, generator, phase["full_share"], clean)
        if float(torch.rand((), generator=generator)) < phase["material_share"]:
            return self._draw_alike(0.5, severity, generator)
        return draw_pairs(self.pool["train"], self.config["sizes"], severity, generator)

    def _draw_alike(self, share: float, severity: Tensor, generator: torch.Generator) -> Pairs:
        """Draw images of the encoder's size: ``share`` of them made by real methods."""
        n = round((1 - share) * len(severity))
        made = draw_pairs(self.pool["train"], [self.size], severity[:n], generator)
        return join([made, draw_material(self.material["train"], severity[n:], generator)])

    def _save(self) -> None:
        parts = {name: getattr(self, name).state_dict() for name in ("model", "head", "optimizer")}
        partial = self.file.with_suffix(".part")
        torch.save({"config": self.config, "step": self.step, **parts}, partial)
        partial.replace(self.file)

    def _resume(self) -> None:
        state = torch.load(self.file, weights_only=True)
        if state["config"] != self.config:
            raise SystemExit(f"{self.file} is of another configuration; choose another --output")
        self.step = state["step"]
        for name in ("model", "head", "optimizer"):
            getattr(self, name).load_state_dict(state[name])


def freeze(model: JanusForConditionalGeneration) -> list[nn.Parameter]:
    """Freeze the first layer and the image generator; return what learns."""
    tower = model.model.vision_model
    for module in (tower.embeddings, tower.encoder.layers[0]):
        module.requires_grad_(False)
    for name, module in model.model.named_children():
        if name == "vqmodel" or name.startswith("generation_"):
            module.requires_grad_(False)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@torch.no_grad()
def unit_gain(model: JanusForConditionalGeneration, generator: torch.Generator) -> None:
    """Draw the matrices of tower, aligner and language model with variance 1 / inputs.

    transformers starts every matrix at a standard deviation of .02: too small for so short a
    training.
    """
    parts = ("vision_model.encoder.", "model.aligner.", "language_model.layers.")
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and any(part in name for part in parts):
            draw = torch.randn(weight.shape, generator=generator)
            weight.copy_(draw / math.sqrt(weight.shape[1]))


def main() -> None:
    """Train, export to ``OUTPUT/janus_mini``, write the answers to ``OUTPUT/results.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("outputs/pretrain_janus_mini"))
    parser.add_argument("--smoke", action="store_true", help="seconds: smoke.yaml, not config.yaml")
    parser.add_argument("--stop-after", type=int, help="end early; the same command goes on")
    parser.add_argument("--anatomies", nargs="+", default=[*ANATOMIES], choices=[*ANATOMIES])
    arguments = parser.parse_args()
    name = "smoke.yaml" if arguments.smoke else "config.yaml"
    config = yaml.safe_load((HERE / name).read_text(encoding="utf-8"))
    for side in ("train", "held_out"):  # of the pool: no subjects of the other anatomies
        counts = config["pool"][side].items()
        config["pool"][side] = {name: n * (name in arguments.anatomies) for name, n in counts}
    torch.set_num_threads(config["threads"])
    trainer = Trainer(config, arguments.output)
    if not trainer.run(arguments.stop_after):
        print(f"stopped after step {trainer.step}; the same command without --stop-after goes on")
        return
    export(trainer.model, trainer.processor, arguments.output / "janus_mini")
    held_out = trainer.pool["held_out"], trainer.material["held_out"]
    sizes, n = config["sizes"], config["n_evaluate"]
    results = evaluate(trainer.model, trainer.questions, *held_out, sizes, n)
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(s)}" for name, s in results.items())
    text = f"{{\n{lines}\n}}\n"
    (arguments.output / "results.json").write_text(text, encoding="utf-8")
    print(text)
    print(f"checkpoint in {arguments.output / 'janus_mini'}")


if __name__ == "__main__":
    main()
