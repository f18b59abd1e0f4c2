"""A light student of an encoder, trained to its projected tokens on images of many qualities."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mrisem.compression.compression import loss_gradient, project, varied_images
from mrisem.data.auxiliary import AuxiliarySlices
from mrisem.errors import InputError
from mrisem.files import whole
from mrisem.physics.masks import stable_seed
from mrisem.prior.image.bank import EmbeddingBank
from mrisem.prior.image.compressed import StudentNetwork, student_preparation
from mrisem.prior.image.encoder import FrozenEncoder
from mrisem.prior.image.prior import SemanticPrior
from mrisem.progress import progress

SAVE_EVERY = 100  # steps
MAX_MOVE, N_MOVES = 0.1, 4  # share of an image's norm; steps along the gradient


@dataclass(frozen=True)
class Student:
    """Training of a `StudentNetwork` (`mrisem.compression.compression.Compression`).

    The loss of a batch is ``1 - cos(z, z_T)``, the mean over tokens z of the student and z_T of the
    teacher. A prior guides by its gradient, and a fit follows it to images that the student holds
    for good and the teacher does not. So the student learns in rounds: after the first, images
    are moved along its own gradient before the teacher, which sees each once, is asked. (The
    teacher's gradient was tried as a target: VGG16's is nearly noise, and is not learnt.)

    Args:
        channels: number of channels at full resolution (`StudentNetwork`).
        n_batches: number of batches of images, each of one slice.
        n_variants: number of images of a batch.
        rounds: number of rounds, which share batches and steps.
        steps: number of steps of Adam, each on one batch.
        learning_rate: largest learning rate; it falls to zero along half a cosine.
        seed: seed of images, starting weights and order.
    """

    channels: Annotated[int, Ge(1)] = 24
    n_batches: Annotated[int, Ge(1)] = 150
    n_variants: Annotated[int, Ge(2)] = 4
    rounds: Annotated[int, Ge(1)] = 5
    steps: Annotated[int, Ge(1)] = 2000
    learning_rate: Annotated[float, Gt(0), Le(1)] = 2e-3
    seed: int = 0

    def check(self, teacher: Any) -> None:
        """See `Compression`."""
        if not isinstance(teacher, FrozenEncoder) or math.isqrt(n := teacher.n_tokens) ** 2 != n:
            raise InputError(
                "a student needs a teacher of this package with a square grid of tokens, got "
                f"{type(teacher).__name__} with {teacher.n_tokens} tokens; set encoder=vgg16"
            )

    def components(self, bank: EmbeddingBank) -> list[int | None]:
        """See `Compression`: its tokens are projected already."""
        return [None] * len(bank.levels)

    def compress(
        self, teacher: SemanticPrior, images: AuxiliarySlices, folder: Path
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """See `Compression`."""
        encoder: Any = teacher.encoder
        widths = [part.components.shape[1] for part in teacher.bank.levels.values()]
        facts: dict[str, Any] = {
            "widths": widths,
            "grid": math.isqrt(encoder.n_tokens),
            "channels": self.channels,
        }
        frame = {name: getattr(encoder.prepare, name) for name in ("image_size", "resized")}
        network, device = StudentNetwork(**facts), encoder.prepare.mean.device
        generator = torch.Generator().manual_seed(stable_seed("student", self.seed))
        for weight in network.parameters():  # std = sqrt(2 / fan_in), biases zero (He et al. 2015)
            nn.init.zeros_(weight)
            if weight.ndim > 1:
                nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
        student = nn.Sequential(student_preparation(frame), network).to(device)
        batches = varied_images(images, self.n_batches, self.n_variants, self.seed)
        self._train(teacher, student, batches, folder)
        return facts | {"frame": frame}, network.state_dict()

    def _train(
        self,
        teacher: SemanticPrior,
        student: nn.Module,
        batches: Iterator[tuple[int, Tensor]],
        folder: Path,
    ) -> None:
        """Train the student in place: in each round on the images so far, and on new ones."""
        optimizer = torch.optim.Adam(student.parameters(), self.learning_rate)
        kept, done, files = folder / "training.pt", 0, list[Path]()
        if kept.is_file():
            state = torch.load(kept, weights_only=True)
            student.load_state_dict(state["student"])
            optimizer.load_state_dict(state["optimizer"])
            done = state["done"]
        device = next(student.parameters()).device
        with progress("student", self.steps, "steps", done) as bar:
            for number in range(self.rounds):
                for i, batch in islice(batches, -(-self.n_batches // self.rounds)):
                    files.append(folder / f"{i}.safetensors")
                    if not files[-1].is_file():
                        self._ask(teacher, student if number else None, i, batch, files[-1])
                end = self.steps * (number + 1) // self.rounds
                while done < end:
                    rate = (1 + math.cos(math.pi * done / self.steps)) / 2
                    optimizer.param_groups[0]["lr"] = self.learning_rate * rate
                    file = files[stable_seed("order", self.seed, done) % len(files)]
                    optimizer.zero_grad(set_to_none=True)
                    named = {name: value.to(device) for name, value in load_file(file).items()}
                    imitation(student, named).backward()
                    optimizer.step()
                    done += 1
                    bar.advance()
                    if done % SAVE_EVERY == 0 or done == end:
                        state = {"student": student.state_dict(), "done": done}
                        with whole(kept) as partial:
                            torch.save(state | {"optimizer": optimizer.state_dict()}, partial)

    def _ask(
        self, teacher: SemanticPrior, student: nn.Module | None, i: int, batch: Tensor, file: Path
    ) -> None:
        """Write batch number i, moved by a student's gradient, and the teacher's tokens of it."""
        parts = [*teacher.bank.levels.values()]
        batch = batch.to(parts[0].entries.device)
        if student is not None:
            generator = torch.Generator().manual_seed(stable_seed("moved", self.seed, i))
            batch = moved(facing(teacher, student), batch, generator)
        tokens = enumerate(project(teacher.encoder, parts, batch))
        named = {f"tokens {level}": z.contiguous() for level, z in tokens}
        with whole(file) as partial:
            save_file({"image": batch.contiguous(), **named}, partial)


def facing(teacher: SemanticPrior, student: Any) -> SemanticPrior:
    """Make a prior of a student that still learns: its tokens compare with the teacher's bank."""
    levels = dict(teacher.bank.levels)
    for level, part in levels.items():
        identity = torch.eye(part.components.shape[1]).to(part.components)
        levels[level] = replace(part, mean=torch.zeros_like(identity[0]), components=identity)
    bank = replace(teacher.bank, levels=levels)
    return SemanticPrior(student, bank, teacher.level_weights, teacher.temperature)


def moved(prior: SemanticPrior, image: Tensor, generator: torch.Generator) -> Tensor:
    """Follow a prior's gradient down from images ``(n, y, x)``, each by a random length."""
    share = MAX_MOVE / N_MOVES * torch.rand(len(image), 1, 1, generator=generator).to(image)
    for _ in range(N_MOVES):
        gradient = loss_gradient(prior, image)
        lengths = [x.flatten(1).norm(dim=1)[:, None, None] for x in (image, gradient)]
        step = share * lengths[0] / lengths[1].clamp_min(torch.finfo(image.dtype).tiny)
        image = (image - step * gradient).clamp_min(0)
    return image / image.amax((1, 2), keepdim=True)


def imitation(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Compute ``1 - cos(z, z_T)``, its mean over tokens and levels.

    Args:
        network: student, from images ``(n, y, x)`` to unit tokens of each level.
        batch: ``image``, and ``tokens 0``, ``tokens 1`` ... of the teacher.
    """
    pairs = [(z, batch[f"tokens {i}"]) for i, z in enumerate(network(batch["image"]))]
    return 1 - torch.stack([(z * z_t).sum(-1).mean() for z, z_t in pairs]).mean()
