"""Training of low-rank factors: seeded step by step, and continued where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mrisem.adaptation.material import Material
from mrisem.adaptation.model import Adaptable
from mrisem.adaptation.questions import IGNORE
from mrisem.errors import InputError
from mrisem.files import reading, whole
from mrisem.physics.masks import stable_seed
from mrisem.progress import progress
from mrisem.signals import Interrupted, hold, release

_WARM, _COOL = 0.1, 0.4  # shares of the steps in which the rate rises from, and falls to, zero


@dataclass(frozen=True)
class Steps:
    """How factors are trained.

    Args:
        steps: number of steps of AdamW.
        batch_size: images of a step, each with all its questions.
        learning_rate: largest rate.
        save_every: steps between two saves.
        seed: seed of images, wordings and dropout.
    """

    steps: int
    batch_size: int
    learning_rate: float
    save_every: int
    seed: int


class Training:
    """Training of factors, and its state between steps.

    Args:
        base: the model with its factors.
        factors: low-rank factors that are trained, by name.
        how: steps and rates.
        facts: all on which the result depends; a state with other facts is refused.
        file: state between steps.

    Attributes:
        step: number of steps that are done.
        losses: mean cross-entropy of the tokens of answers, of each step.
        before: scores before the first step, kept in the state.

    Raises:
        InputError: when the file is of another training.
    """

    def __init__(
        self,
        base: Adaptable,
        factors: Mapping[str, Tensor],
        how: Steps,
        facts: Mapping[str, Any],
        file: Path,
    ) -> None:
        self.base, self.factors, self.how, self.facts, self.file = base, factors, how, facts, file
        self.optimizer = torch.optim.AdamW(factors.values(), how.learning_rate, weight_decay=0.0)
        self.step, self.losses = 0, list[float]()
        self.before: dict[str, Any] = {}
        if file.is_file():
            self._resume()

    def run(self, material: Material) -> None:
        """Train to the last step; a signal ends it after a whole step, which is kept."""
        self.base.model.train()  # dropout, and recomputed activations
        with progress("adapt", self.how.steps, "steps", self.step) as bar:
            while self.step < self.how.steps:
                hold()
                self.losses.append(self._train_step(material))
                self.step += 1
                bar.advance()
                if self.step % self.how.save_every == 0 or self.step == self.how.steps:
                    self.save()
                try:
                    release()
                except Interrupted as stop:
                    self.save()
                    stop.kept = f"{self.step} steps are kept in {self.file.parent}"
                    raise
        self.base.model.eval()

    def _train_step(self, material: Material) -> float:
        """One batch; its random numbers depend on the seed and the step alone."""
        seed = stable_seed("adapt", self.how.seed, self.step)
        asked = material.draw(self.how.batch_size, torch.Generator().manual_seed(seed))
        with torch.random.fork_rng():  # of dropout, which takes no generator
            torch.manual_seed(seed)
            logits = self.base.logits(asked).flatten(0, 1)
            labels = asked.sequences.labels.flatten().to(logits.device)
            loss = cross_entropy(logits, labels, ignore_index=IGNORE)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        share = (self.step + 1) / self.how.steps
        rate = min(1.0, share / _WARM, (1 - share + 1 / self.how.steps) / _COOL)
        self.optimizer.param_groups[0]["lr"] = self.how.learning_rate * rate
        nn.utils.clip_grad_norm_(self.factors.values(), 1.0)
        self.optimizer.step()
        return loss.item()

    def save(self) -> None:
        """Write the state."""
        state = {name: getattr(self, name) for name in ("step", "losses", "before")}
        state |= {"facts": dict(self.facts), "factors": dict(self.factors)}
        state["optimizer"] = self.optimizer.state_dict()
        with whole(self.file) as partial:
            torch.save(state, partial)

    def _resume(self) -> None:
        with reading(self.file, "the state of an adaptation", "remove it to begin again"):
            state = torch.load(self.file, weights_only=True, map_location="cpu")
            changed = [k for k, v in self.facts.items() if state["facts"].get(k) != v]
        if changed:
            raise InputError(
                f"{self.file.parent} holds another adaptation, its {changed[0]} is "
                f"{state['facts'].get(changed[0])}, got {self.facts[changed[0]]}; choose another "
                "output_dir"
            )
        for name, factor in self.factors.items():
            factor.data.copy_(state["factors"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.losses, self.before = state["step"], state["losses"], state["before"]
