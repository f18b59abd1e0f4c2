"""The data sets of fastMRI: each names its acquisitions and which other contrast goes with each."""

from collections.abc import Mapping
from typing import ClassVar

from mrisem.data.datamodules import FastMRI


class FastMRIBrain(FastMRI):
    """fastMRI's brain data."""

    anatomy = "brain"
    acquisitions = ("AXT1", "AXT1PRE", "AXT1POST", "AXT2", "AXFLAIR")
    cross: ClassVar[Mapping[str, str]] = {
        "AXT1": "AXT2",
        "AXT1PRE": "AXT2",
        "AXT1POST": "AXT2",
        "AXT2": "AXT1",
        "AXFLAIR": "AXT2",
    }


class FastMRIKnee(FastMRI):
    """fastMRI's knee data: proton density without and with fat suppression."""

    anatomy = "knee"
    acquisitions = ("CORPD_FBK", "CORPDFS_FBK")
    cross: ClassVar[Mapping[str, str]] = {
        "CORPD_FBK": "CORPDFS_FBK",
        "CORPDFS_FBK": "CORPD_FBK",
    }


class FastMRIMixed(FastMRI):
    """Brain and knee files in one folder, for networks that serve both."""

    anatomy = "mixed"
    acquisitions = FastMRIBrain.acquisitions + FastMRIKnee.acquisitions
    cross: ClassVar[Mapping[str, str]] = {**FastMRIBrain.cross, **FastMRIKnee.cross}
