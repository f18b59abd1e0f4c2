"""A light student of an encoder, trained to its projected tokens on images of many qualities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mrisem.compression.compression import project, varied_images
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


@dataclass(frozen=True)
class Student:
    """Training of a `StudentNetwork` (`mrisem.compression.compression.Compression`).

    The loss of a batch is ``1 - cos(z, z_T)``, the mean over tokens z of the student and z_T of the
    teacher. A prior guides by its gradient at the image, so the images span all that a fit goes
    through, from aliased to clean. The gradient itself is not taught: VGG16's is nearly noise from
    pixel to pixel, a student of either training repeats it with a cosine of .01, and the one
    that was taught it points less along the error. The teacher, which costs most, sees each image
    once: its tokens are kept.

    Args:
        channels: number of channels at full resolution (`StudentNetwork`).
        n_batches: number of batches of images, each of one slice.
        n_variants: number of images of a batch.
        steps: number of steps of Adam, each on one batch.
        learning_rate: largest learning rate; it falls to zero along half a cosine.
        seed: seed of images, starting weights and order.
    """

    channels: Annotated[int, Ge(1)] = 24
    n_batches: Annotated[int, Ge(1)] = 150
    n_variants: Annotated[int, Ge(2)] = 4
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
        facts = {"widths": widths, "grid": math.isqrt(encoder.n_tokens), "channels": self.channels}
        frame = {name: getattr(encoder.prepare, name) for name in ("image_size", "resized")}
        network, device = StudentNetwork(**facts), encoder.prepare.mean.device
        generator = torch.Generator().manual_seed(stable_seed("student", self.seed))
        for weight in network.parameters():  # std = sqrt(2 / fan_in), biases zero (He et al. 2015)
            nn.init.zeros_(weight)
            if weight.ndim > 1:
                nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
        files = self._ask(teacher, images, folder / "tokens")
        whole_network = nn.Sequential(student_preparation(frame), network).to(device)
        self._train(whole_network, files, folder / "training.pt")
        return facts | {"frame": frame}, network.state_dict()

    def _ask(self, teacher: SemanticPrior, images: AuxiliarySlices, folder: Path) -> list[Path]:
        """Write each batch and the teacher's tokens to a file, unless it is there."""
        files = [folder / f"{i}.safetensors" for i in range(self.n_batches)]
        parts = [*teacher.bank.levels.values()]
        with progress("teacher", self.n_batches, "batches") as bar:
            for i, batch in varied_images(images, self.n_batches, self.n_variants, self.seed):
                if not files[i].is_file():
                    with whole(files[i]) as partial:
                        tokens = enumerate(project(teacher.encoder, parts, batch))
                        named = {f"tokens {i}": z.contiguous() for i, z in tokens}
                        save_file({"image": batch.contiguous(), **named}, partial)
                bar.advance()
        return files

    def _train(self, network: nn.Module, files: Sequence[Path], kept: Path) -> None:
        """Train the network in place, from the state that is kept in a file."""
        optimizer = torch.optim.Adam(network.parameters(), self.learning_rate)
        device, done = next(network.parameters()).device, 0
        if kept.is_file():
            state = torch.load(kept, weights_only=True, map_location=device)
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            done = state["done"]
        with progress("student", self.steps, "steps", done) as bar:
            while done < self.steps:
                rate = (1 + math.cos(math.pi * done / self.steps)) / 2
                optimizer.param_groups[0]["lr"] = self.learning_rate * rate
                file = files[stable_seed("order", self.seed, done) % len(files)]
                optimizer.zero_grad(set_to_none=True)
                batch = {name: value.to(device) for name, value in load_file(file).items()}
                imitation(network, batch).backward()
                optimizer.step()
                done += 1
                bar.advance()
                if done % SAVE_EVERY == 0:
                    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
                    with whole(kept) as partial:
                        torch.save(state | {"done": done}, partial)


def imitation(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Compute ``1 - cos(z, z_T)``, its mean over tokens and levels.

    Args:
        network: student, from images ``(n, y, x)`` to unit tokens of each level.
        batch: ``image``, and ``tokens 0``, ``tokens 1`` ... of the teacher.
    """
    pairs = [(z, batch[f"tokens {i}"]) for i, z in enumerate(network(batch["image"]))]
    return 1 - torch.stack([(z * z_t).sum(-1).mean() for z, z_t in pairs]).mean()
