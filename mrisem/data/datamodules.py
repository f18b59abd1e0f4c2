"""fastMRI data sets for Lightning."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytorch_lightning as pl
import torch
from annotated_types import Ge
from torch.utils.data import DataLoader

from mrisem.data.auxiliary import AuxiliarySettings, AuxiliarySlices, Reconstructor
from mrisem.data.batches import Readout
from mrisem.data.dataset import SliceGroups
from mrisem.data.folders import find_volumes
from mrisem.data.images import images_of_root
from mrisem.data.index import FileIndex
from mrisem.data.loaders import make_loader, random_order
from mrisem.data.readers.axes import parse_axes
from mrisem.data.readers.conversion import Conversion
from mrisem.data.readers.scan import ReadOptions
from mrisem.data.slices import VolumeSlice, central_slices
from mrisem.data.subjects import Subjects
from mrisem.data.volumes import Center, VolumeInfo
from mrisem.data.workers import count_readers
from mrisem.errors import InputError
from mrisem.physics.masks import ColumnMask, stable_seed
from mrisem.types import Batch, FailedScan


class FastMRI(pl.LightningDataModule):
    """Data set in fastMRI's layout, split by subject.

    * reconstructed (`predict_dataloader`): the subjects of ``multicoil_<split>``;
    * auxiliary (`auxiliary_slices`): ``auxiliary.n_subjects`` subjects of ``multicoil_train``, or
      of a folder of images, that are neither reconstructed nor in another split;
    * training: the other subjects of ``multicoil_train`` (``train_subjects="remaining"``), or the
      auxiliary subjects themselves (``"auxiliary"``, as the paper's warm start);
    * validation: ``validation_subjects`` further subjects of ``multicoil_train``, which select the
      best checkpoint. Scans that may be reconstructed have no part in training.

    Args:
        root: folder that holds ``multicoil_train``, ``multicoil_val`` and so on.
        mask: undersampling mask.
        acquisition: fastMRI's name of the sequence; None: every acquisition of the anatomy.
        split: split that is reconstructed.
        max_slices: number of central slices of each volume; None: all.
        max_volumes: number of first volumes of a split; None: all.
        slices_at_once: largest number of slices of one volume in a batch.
        seed: seed of masks and order.
        cache_folder: folder of cached sensitivity maps; None: they are not kept.
        index_folder: folder of the `FileIndex`; None: each start opens every file.
        on_error: ``raise`` at a bad scan, or ``skip``: it comes as a `FailedScan`, and bad
            auxiliary scans are left out with a warning.
        auxiliary: settings of the auxiliary set.
        train_subjects: subjects that are trained on, ``remaining`` or ``auxiliary``.
        validation_subjects: number of subjects of ``multicoil_train`` held out of training; 0: no
            validation, so no checkpoint is selected.
        max_validation_slices: number of central slices of each file of those subjects; None: as
            many as ``max_slices``.
        n_workers: number of processes that read ahead; ``auto``: see `count_readers`.
        sensitivity_maps: estimator of the maps, ``torch`` (of this package) or ``sigpy``;
            ``in_file``: the dataset ``sensitivity_maps`` of each scan; a path: a file of maps, or a
            folder of such files.
        kspace_center: position of the zero frequency in the files: ``middle`` of both axes, as in
            fastMRI, or their ``corner``, at index 0.
        readout: image rows that are reconstructed: those of the ``target``, or ``all`` rows of an
            oversampled readout.
        axes: names of the axes of arrays in other formats, such as ``coil,y,x``; None: the order
            of each format.
        prewhiten: whether scans that hold noise samples are whitened by them.
        conversion_folder: cache of converted scans; None: files of other formats are refused.
        virtual_coils: number of coils to which scans with more coils are compressed; None: no
            compression.
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
            raise InputError("data.root must name the data set's folder, got none; set data.root")
        self.root = Path(root)
        self.split = split
        self.max_slices = max_slices
        self.seed = seed
        self.cache_folder = None if cache_folder is None else Path(cache_folder)
        _check_choice("on_error", on_error, "raise", "skip")
        _check_choice("data.train_subjects", train_subjects, "remaining", "auxiliary")
        _check_choice("data.kspace_center", kspace_center, "middle", "corner")
        _check_choice("data.readout", readout, "target", "all")
        self.on_error = on_error
        if not isinstance(auxiliary, AuxiliarySettings):  # a configuration gives a mapping
            auxiliary = AuxiliarySettings(**(auxiliary or {}))
        self.auxiliary = auxiliary
        if max_validation_slices is not None and validation_subjects == 0:
            raise InputError(
                "data.max_validation_slices limits the slices of validation subjects, got "
                f"{max_validation_slices} without such subjects; set data.validation_subjects, or "
                "leave it out"
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
        conversion = (
            None if conversion_folder is None else Conversion(Path(conversion_folder), options)
        )
        inspect = partial(
            find_volumes, kspace_center=kspace_center, index=self.index, conversion=conversion
        )
        self._subjects = Subjects(
            kind=type(self),
            # Several splits and the bank ask for the same folders: inspect each only once.
            find=cache(inspect),
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
        self._done: set[tuple[str, int]] = set()  # (file, slice) whose output exists
        self._share = (0, 1)  # number of this process, and number of processes
        self._training = False
        self.reconstructor: Reconstructor | None = None  # makes negatives that are reconstructions

    def setup(self, stage: str | None = None) -> None:
        """Find the files of a stage, so that bad input is refused before anything is computed."""
        self._training = stage == "fit"
        if self._training:
            self._subjects.training()
        else:
            self._subjects.volumes(self.split)

    def skip(self, done: Collection[tuple[str, int]]) -> None:
        """Leave out slices ``(file, slice)`` of the reconstructed split, whose output exists."""
        self._done = set(done)

    def take(self, volumes: Sequence[VolumeInfo]) -> None:
        """Reconstruct these volumes, in any folder, instead of those in the split's folder."""
        self._subjects = replace(self._subjects, given_volumes=tuple(volumes))

    def share(self, number: int, n: int) -> None:
        """Reconstruct only the share of process ``number`` of ``n``: every ``n``-th batch.

        The share does not depend on slices that are done already.
        """
        self._share = (number, n)

    @property
    def slices(self) -> list[VolumeSlice]:
        """Slices that are to be reconstructed."""
        slices = central_slices(self._subjects.volumes(self.split), self.max_slices)
        number, n = self._share
        # Shares are cut from all slices, before the finished ones are left out: processes that
        # start at different times would otherwise disagree on them.
        return [
            part
            for position, part in enumerate(slices)
            if (part.volume.file, part.slice) not in self._done
            and (position // self.slices_at_once) % n == number
        ]

    @property
    def training_slices(self) -> list[VolumeSlice]:
        """Slices that are trained on."""
        return central_slices(self._subjects.training()[0], self.max_slices)

    @property
    def validation_slices(self) -> list[VolumeSlice]:
        """Slices that select a checkpoint."""
        return central_slices(self._subjects.training()[1], self.max_validation_slices)

    @property
    def failed(self) -> list[FailedScan]:
        """Files of the reconstructed split that could not be inspected (``on_error=skip``)."""
        return self._subjects.failed(self.split)

    def predict_dataloader(self) -> DataLoader:
        """Batches of the split that is reconstructed, or of this process's share of it."""
        # bad files are reported once, by the first process
        return self._loader(self.slices, failed=[] if self._share[0] else self.failed)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Batches of the validation subjects, with the same masks in each epoch.

        Each of several processes reads all of them, so that all select the same checkpoint. Without
        validation subjects give the trainer ``limit_val_batches=0``; otherwise Lightning warns.
        """
        slices = self.validation_slices
        return self._loader(slices) if slices else []

    def train_dataloader(self) -> DataLoader:
        """Batches of the training subjects; masks and the random order are new in each epoch.

        The trainer must therefore ask again each epoch (``reload_dataloaders_every_n_epochs=1``).
        Each of several processes gets its share (``use_distributed_sampler=False``).
        """
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        failed = self._subjects.failed("train")
        return self._loader(self.training_slices, epoch, failed)

    def transfer_batch_to_device(
        self, batch: Batch | FailedScan, device: torch.device, dataloader_idx: int
    ) -> Batch | FailedScan:
        """Move the tensors of a batch to a device; a failed scan has none."""
        return batch.to(device) if isinstance(batch, Batch) else batch

    def auxiliary_slices(
        self,
        acquisition: str | None = None,
        contrast: Literal["same", "cross", "mixed"] = "same",
    ) -> AuxiliarySlices:
        """Auxiliary images for scans of one acquisition.

        Args:
            acquisition: acquisition of the scans to be reconstructed; None: the only one that they
                have.
            contrast: contrast of the images: that of the scans (``same``), another one (``cross``),
                or every one of the anatomy (``mixed``); ``auxiliary.acquisition`` overrides it.

        Raises:
            InputError: when there are no such subjects, the scans have several acquisitions and
                none is named, or the contrast is unknown.
        """
        if acquisition is None:
            acquisitions = self.reconstructed_acquisitions
            if len(acquisitions) != 1:
                raise InputError(
                    "an auxiliary set serves scans of one acquisition, got scans of "
                    f"{acquisitions}; set data.acquisition"
                )
            (acquisition,) = acquisitions
        volumes = self._subjects.bank_volumes(acquisition, contrast)
        return AuxiliarySlices(
            *(volumes, self.auxiliary, self.reconstructor, contrast, self.on_error, self.readout)
        )

    @property
    def reconstructed_acquisitions(self) -> list[str]:
        """Acquisitions of the scans to be reconstructed; in training, of the training scans.

        Each has an auxiliary set of its own.
        """
        volumes = (
            self._subjects.training()[0] if self._training else self._subjects.volumes(self.split)
        )
        return sorted({volume.acquisition for volume in volumes})

    def _loader(
        self,
        slices: Sequence[VolumeSlice],
        epoch: int | None = None,
        failed: Sequence[FailedScan] = (),
    ) -> DataLoader:
        """Make the loader of slices.

        Args:
            slices: slices to load.
            epoch: number of the training epoch, which has a random order and masks of its own;
                None: the order of ``slices`` and the masks of the data set.
            failed: bad files that follow the slices.
        """
        training = epoch is not None
        seed = self.seed if epoch is None else stable_seed("epoch", self.seed, epoch)
        groups = self._groups(
            slices,
            seed=seed,
            cache_folder=self.cache_folder,
            failed=failed,
            # The masks of an epoch never occur again, but their centre lines do: maps that are
            # estimated from those alone are found in the cache.
            calibration="nominal" if training else "drawn",
        )
        n = len(groups)
        order = random_order(n, seed, self.trainer) if training else list(range(n))
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        n_workers = count_readers(self.n_workers, n, groups.batch_bytes, device)
        return make_loader(groups, order, n_workers)


def _check_choice(name: str, value: str, *choices: str) -> None:
    """Raise InputError unless an option has one of its values."""
    if value not in choices:
        raise InputError(f"{name} must be one of {choices}, got {value!r}; set one of them")
