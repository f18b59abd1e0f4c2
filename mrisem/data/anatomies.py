"""The data sets of fastMRI: each names its acquisitions and which other contrast goes with each."""

from collections.abc import Mapping
from typing import ClassVar

from mrisem.data.datamodules import FastMRI


class FastMRIBrain(FastMRI):
    """fastMRI's brain data."""

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
    """fastMRI's knee data: proton density without and with fat suppression."""

    anatomy = "knee"
    cross: ClassVar[Mapping[str, str]] = {"CORPD_FBK": "CORPDFS_FBK", "CORPDFS_FBK": "CORPD_FBK"}
    acquisitions = tuple(cross)


class FastMRIMixed(FastMRI):
    """Brain and knee files in one folder, for networks that serve both."""

    anatomy = "mixed"
    cross: ClassVar[Mapping[str, str]] = {**FastMRIBrain.cross, **FastMRIKnee.cross}
    acquisitions = tuple(cross)
