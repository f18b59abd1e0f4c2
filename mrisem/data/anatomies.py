"""Data sets of fastMRI with their acquisitions, and another contrast for each acquisition."""

from collections.abc import Mapping
from typing import ClassVar

from mrisem.data.datamodules import FastMRI


class FastMRIBrain(FastMRI):
    """Brain data of fastMRI."""

    anatomy = "brain"
    cross: ClassVar[Mapping[str, str]] = {
        "AXT1": "AXT2",
        "AXT1PRE": "AXT2",
        "AXT1POST": "AXT2",
        "AXT2": "AXT1",
        "AXFLAIR": "AXT2",
    }
    acquisitions = tuple(cross)


class FastMRIKnee(FastMRI):
    """Knee data of fastMRI: proton density without and with fat suppression."""

    anatomy = "knee"
    cross: ClassVar[Mapping[str, str]] = {"CORPD_FBK": "CORPDFS_FBK", "CORPDFS_FBK": "CORPD_FBK"}
    acquisitions = tuple(cross)


class FastMRIMixed(FastMRI):
    """Brain and knee files in one folder, for networks that reconstruct both."""

    anatomy = "mixed"
    cross: ClassVar[Mapping[str, str]] = {**FastMRIBrain.cross, **FastMRIKnee.cross}
    acquisitions = tuple(cross)
