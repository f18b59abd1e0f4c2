"""fastMRI data sets for Lightning."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytorch_lightning as pl
import torch
from annotated_types import Ge
from torch.utils.data import DataLoader

from mrisem.data.auxiliary import (
    AuxiliarySettings,
    AuxiliarySlices,
    Reconstructor,
)
from mrisem.data.batches import Readout
from mrisem.data.dataset import SliceGroups
from mrisem.data.folders import find_volumes
from mrisem.data.images import images_of_root
from mrisem.data.index import FileIndex
from mrisem.data.readers.axes import parse_axes
from mrisem.data.readers.conversion import Conversion
from mrisem.data.readers.scan import ReadOptions
from mrisem.data.slices import SliceOf, central_slices
from mrisem.data.subjects import Subjects
from mrisem.data.volumes import Center, VolumeInfo
from mrisem.data.workers import count_readers
from mrisem.errors import InputError
from mrisem.physics.masks import ColumnMask, stable_seed
from mrisem.signals import leave
from mrisem.types import Batch, FailedScan


class FastMRI(pl.LightningDataModule):
    """A folder of fastMRI files, split by subject.

    * reconstructed (`predict_dataloader`): the subjects of ``multicoil_<split>``;
    * auxiliary (`auxiliary_slices`): ``auxiliary.n_subjects`` subjects of ``multicoil_train``, or
      of a folder of images, that are neither reconstructed nor in another folder;
    * training: the other subjects of ``multicoil_train`` (``train_subjects="remaining"``), or the
      auxiliary ones themselves (``"auxiliary"``, as the paper's warm start);
    * validation: ``validation_subjects`` others of ``multicoil_train``, which select the best
      checkpoint. Scans that may be reconstructed, with their targets, have no part in training.

    Args:
        root: folder with ``multicoil_train`` and so on.
        mask: how scans are undersampled.
        acquisition: fastMRI's name; None: every one of the anatomy.
        split: folder that is reconstructed.
        max_slices: central slices of each volume; None: all.
        max_volumes: first volumes of a split; None: all.
        slices_at_once: most slices of one volume in a batch.
        seed: seed of masks and order.
        cache_folder: folder of sensitivity maps; None: not kept.
        index_folder: folder of the `FileIndex`; None: each start opens every file.
        on_error: ``raise`` at a bad scan, or ``skip``: it comes as a `FailedScan`, and bad
            auxiliary scans are left out with a warning.
        auxiliary: settings of the auxiliary set.
        train_subjects: ``remaining`` or ``auxiliary``.
        validation_subjects: number of subjects of ``multicoil_train`` held out of training; 0: no
            validation, so no checkpoint is selected.
        max_validation_slices: central slices of each file of those subjects; None: as
            ``max_slices`` says.
        n_workers: processes that read ahead; ``auto``: see `count_readers`.
        sensitivity_maps: their estimator, ``torch`` (ours) or ``sigpy``; ``in_file`` takes the
            dataset ``sensitivity_maps`` of each scan, a path a file of maps or a folder of them.
        kspace_center: where the zero frequency lies in the files: in the ``middle`` of both axes,
            as fastMRI has it, or in their ``corner``, at index 0.
        readout: image rows that are reconstructed: those that the ``target`` has, or ``all`` of an
            oversampled readout.
        axes: names of the axes of arrays in other formats, such as ``coil,y,x``; None: each
            format's own order.
        prewhiten: whether scans that hold noise samples are whitened by them.
        conversion_folder: cache of scans of other formats; None: such files are refused.
        virtual_coils: coils to which more of them are compressed; None: all are kept.
    """

    anatomy: ClassVar[str]
    acquisitions: ClassVar[tuple[str, ...]]
    cross: ClassVar[Mapping[str, str]]

    def __init__(
        self,
        root: Path | str | None,
        mask: ColumnMask,
        *,
        acquisition: str | None = None,
        split: str = "val",
        max_slices: Annotated[int, Ge(1)] | None = None,
        max_volumes: Annotated[int, Ge(1)] | None = None,
        slices_at_once: Annotated[int, Ge(1)] = 4,
        seed: int = 0,
        cache_folder: Path | str | None = None,
        index_folder: Path | str | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        auxiliary: AuxiliarySettings | Mapping[str, Any] | None = None,
        train_subjects: Literal["remaining", "auxiliary"] = "remaining",
        validation_subjects: Annotated[int, Ge(0)] = 0,
        max_validation_slices: Annotated[int, Ge(1)] | None = None,
        n_workers: Annotated[int, Ge(0)] | Literal["auto"] = "auto",
        sensitivity_maps: str = "torch",
        kspace_center: Center = "middle",
        readout: Readout = "target",
        virtual_coils: Annotated[int, Ge(1)] | None = None,
        axes: str | Sequence[str] | None = None,
        prewhiten: bool = True,
        conversion_folder: Path | str | None = None,
    ):
        super().__init__()
        if root is None:
            raise InputError("data.root must name the data set's folder: set data.root=DIR")
        self.root = Path(root)
        self.split = split
        self.max_slices = max_slices
        self.seed = seed
        self.cache_folder = None if cache_folder is None else Path(cache_folder)
        choices = {
            on_error: ("raise", "skip"),
            train_subjects: ("remaining", "auxiliary"),
            kspace_center: ("middle", "corner"),
            readout: ("target", "all"),
        }
        if wrong := [value for value, allowed in choices.items() if value not in allowed]:
            raise InputError(f"{wrong[0]!r} must be one of {choices[wrong[0]]}; correct the word")
        self.on_error = on_error
        if not isinstance(auxiliary, AuxiliarySettings):  # as configurations hold them
            auxiliary = AuxiliarySettings(**(auxiliary or {}))
        self.auxiliary = auxiliary
        if max_validation_slices is not None and validation_subjects == 0:
            raise InputError(
                f"data.max_validation_slices={max_validation_slices} limits the validation of a "
                "training, got no subjects for it; set data.validation_subjects, or leave it out"
            )
        self.max_validation_slices = max_validation_slices or max_slices
        self.n_workers: int | Literal["auto"] = n_workers
        self.readout = readout
        self.slices_at_once = slices_at_once
        self._groups = partial(
            SliceGroups,
            mask=mask,
            slices_at_once=slices_at_once,
            on_error=on_error,
            sensitivity_maps=sensitivity_maps,
            readout=readout,
            virtual_coils=virtual_coils,
        )
        self.index = FileIndex(None if index_folder is None else Path(index_folder))
        options = ReadOptions(parse_axes(axes), prewhiten, kspace_center)
        kept = None if conversion_folder is None else Conversion(Path(conversion_folder), options)
        inspect = partial(find_volumes, kspace_center=kspace_center, index=self.index)
        find = cache(partial(inspect, conversion=kept))
        self._subjects = Subjects(
            kind=type(self),
            find=find,  # inspects each folder once
            images=cache(images_of_root),
            root=self.root,
            split=split,
            acquisition=acquisition,
            max_volumes=max_volumes,
            seed=seed,
            on_error=on_error,
            auxiliary=auxiliary,
            train_subjects=train_subjects,
            validation_subjects=validation_subjects,
        )
        self._done: set[tuple[str, int]] = set()
        self._share = (0, 1)
        self._training = False
        self.reconstructor: Reconstructor | None = None  # makes negatives that are reconstructions

    def setup(self, stage: str | None = None) -> None:
        """Look for the files of a stage, so that bad input shows before anything is computed."""
        self._training = stage == "fit"
        if self._training:
            self._subjects.training()
        else:
            self._subjects.volumes(self.split)

    def skip(self, done: Collection[tuple[str, int]]) -> None:
        """Leave out slices ``(file, slice)`` of the reconstructed split: their output exists."""
        self._done = set(done)

    def take(self, volumes: Sequence[VolumeInfo]) -> None:
        """Reconstruct these files, wherever they are, instead of those in the split's folder."""
        self._subjects = replace(self._subjects, taken=tuple(volumes))

    def share(self, number: int, n: int) -> None:
        """Reconstruct only every ``n``-th ``slices_at_once``: this is one of several processes.

        What a process takes does not depend on what the others have done.
        """
        self._share = (number, n)

    @property
    def slices(self) -> list[SliceOf]:
        """Slices that will be reconstructed."""
        slices = central_slices(self._subjects.volumes(self.split), self.max_slices)
        number, n = self._share
        return [
            part
            for place, part in enumerate(slices)
            if (part.volume.file, part.slice) not in self._done
            and (place // self.slices_at_once) % n == number
        ]

    @property
    def training_slices(self) -> list[SliceOf]:
        """Slices that are trained on."""
        return central_slices(self._subjects.training()[0], self.max_slices)

    @property
    def validation_slices(self) -> list[SliceOf]:
        """Slices that select a checkpoint."""
        return central_slices(self._subjects.training()[1], self.max_validation_slices)

    @property
    def failed(self) -> list[FailedScan]:
        """Files of the reconstructed split that could not be inspected (``on_error=skip``)."""
        return self._subjects.failed(self.split)

    def predict_dataloader(self) -> DataLoader:
        """Batches of the split that is reconstructed, or of this process's share of it."""
        return self._loader(self.slices, failed=[] if self._share[0] else self.failed)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Batches of the validation subjects, under the same masks each epoch; none without any.

        Of several processes each reads all, so that all select the same checkpoint.
        Give the trainer ``limit_val_batches=0`` then: Lightning warns where it asks for none.
        """
        slices = self.validation_slices
        return self._loader(slices) if slices else []

    def train_dataloader(self) -> DataLoader:
        """Batches of the training subjects, in random order; new masks and order each epoch.

        For that the trainer has to ask again each epoch (``reload_dataloaders_every_n_epochs=1``).
        Of several processes each gets its share (``use_distributed_sampler=False``).
        """
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        failed = self._subjects.failed("train")
        return self._loader(self.training_slices, epoch, failed)

    def transfer_batch_to_device(
        self, batch: Batch | FailedScan, device: torch.device, dataloader_idx: int
    ) -> Batch | FailedScan:
        """Move a batch's tensors."""
        return batch.to(device) if isinstance(batch, Batch) else batch

    def auxiliary_slices(
        self,
        acquisition: str | None = None,
        contrast: Literal["same", "cross", "mixed"] = "same",
    ) -> AuxiliarySlices:
        """Auxiliary images for scans of one acquisition.

        Args:
            acquisition: acquisition of the scans to be reconstructed; None where all are of one.
            contrast: ``same`` takes the scan's own acquisition, ``cross`` another one, ``mixed``
                every one of the anatomy; ``auxiliary.acquisition`` overrides it.

        Raises:
            InputError: when there are no such subjects, the acquisition is left open, or the
                contrast is unknown.
        """
        if acquisition is None:
            acquisitions = self.reconstructed_acquisitions
            if len(acquisitions) != 1:
                raise InputError(
                    "one acquisition must be named for an auxiliary set, the scans hold "
                    f"{acquisitions}; set data.acquisition"
                )
            (acquisition,) = acquisitions
        volumes = self._subjects.of_bank(acquisition, contrast)
        return AuxiliarySlices(
            *(volumes, self.auxiliary, self.reconstructor, contrast, self.on_error, self.readout)
        )

    @property
    def reconstructed_acquisitions(self) -> list[str]:
        """Acquisitions among the slices to be reconstructed: each has its own auxiliary set.

        In training these are the training slices.
        """
        volumes = (
            self._subjects.training()[0] if self._training else self._subjects.volumes(self.split)
        )
        return sorted({volume.acquisition for volume in volumes})

    def _loader(
        self,
        slices: Sequence[SliceOf],
        epoch: int | None = None,
        failed: Sequence[FailedScan] = (),
    ) -> DataLoader:
        """Load slices in their order; those of a training epoch at random, under its own masks."""
        training = epoch is not None
        seed = self.seed if epoch is None else stable_seed("epoch", self.seed, epoch)
        groups = self._groups(
            slices,
            seed=seed,
            cache_folder=self.cache_folder,
            failed=failed,
            # masks of an epoch never come again, their centre lines do
            calibration="nominal" if training else "drawn",
        )
        order = self._random_order(len(groups), seed) if training else list(range(len(groups)))
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        n_workers = count_readers(self.n_workers, len(groups), groups.batch_bytes, device)
        return DataLoader(
            groups,
            batch_size=None,
            sampler=order,
            num_workers=n_workers,
            prefetch_factor=1 if n_workers else None,
            worker_init_fn=leave,
        )

    def _random_order(self, n: int, seed: int) -> list[int]:
        """Order of an epoch, or of this process's share of it."""
        # drawn here: a loader's own generator moves on each time that Lightning looks at it
        generator = torch.Generator().manual_seed(stable_seed("order", seed))
        order: list[int] = torch.randperm(n, generator=generator).tolist()
        if self.trainer is None:
            return order
        return share_of(order, self.trainer.global_rank, self.trainer.world_size)


def share_of(order: Sequence[int], rank: int, n: int) -> list[int]:
    """Return what one of ``n`` processes takes of an order: equally many each, some twice for that.

    >>> share_of([4, 0, 3, 1, 2], 0, 2), share_of([4, 0, 3, 1, 2], 1, 2)
    ([4, 3, 2], [0, 1, 4])
    """
    return list(islice(cycle(order), rank, -(-len(order) // n) * n, n))
