"""Bones, ligaments, muscles and vessels of the knee as signed distances.

Coordinates as in `mrisem.anatomy.knee`: ``x`` lateral, ``y`` front, ``z`` up, mm, joint line at 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mrisem.anatomy.shapes import band, capsule, common, cut, ellipsoid, join


@dataclass(frozen=True)
class Bones:
    """Signed distances of the bones, ``(slice, y, x)`` in mm, negative inside.

    Args:
        femur: distance from the thigh bone.
        tibia: distance from the shin bone.
        fibula: distance from the calf bone.
        patella: distance from the knee cap.
        plateau: height above the joint surface of the tibia.
        rim: distance from the side wall of the tibia, continued upwards.
    """

    femur: Tensor
    tibia: Tensor
    fibula: Tensor
    patella: Tensor
    plateau: Tensor
    rim: Tensor


def bones(points: Tensor) -> Bones:
    """Compute the distances of all four bones at ``points`` ``(slice, y, x, 3)``, mm."""
    fibula = join(
        ellipsoid(points, (33, -20, -21), (8.5, 9, 8)),
        capsule(points, (33, -20, -24), (34, -20, -140), (5.5, 6.5)),
        6,
    )
    patella = ellipsoid(points, (1, 41, 27), (22, 12, 21))
    rim, plateau = _tibia(points)
    tibia = common(rim, 0.85 * plateau, 3.5)
    return Bones(_femur(points), tibia, fibula, patella, plateau, rim)


def _femur(points: Tensor) -> Tensor:
    """Join shaft and condyles; cut out notch, trochlear groove and popliteal surface."""
    shaft = capsule(points, (2, 4, 24), (6, 4, 150), (19.0, 13.5))
    flare = ellipsoid(points, (0, 2, 34), (31, 22, 24))
    medial = ellipsoid(points, (-21, -5, 19.5), (18.5, 31, 20.5))
    lateral = ellipsoid(points, (20.5, -3, 19), (17.5, 32, 20))
    knuckles = torch.minimum(
        ellipsoid(points, (-33, -4, 25), (8, 12, 13)), ellipsoid(points, (33, -4, 23), (7, 11, 11))
    )
    bone = join(join(shaft, flare, 20), join(medial, lateral, 4), 10)
    bone = join(bone, ellipsoid(points, (2, 16, 26), (30, 15, 18)), 8)
    bone = join(bone, knuckles, 6)
    notch = capsule(points, (1, -44, 10), (0, 10, 2), (14, 7))
    groove = capsule(points, (1, 42, 60), (1, 44, 4), (11, 11))
    popliteal = ellipsoid(points, (0, -36, 46), (24, 20, 36))
    return cut(cut(cut(bone, notch, 4), groove, 6), popliteal, 6)


def _tibia(points: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the distance from the side wall, and the height above the joint surface."""
    x, y, z = points.unbind(-1)
    below = (-4 - z).clamp_min(0)
    # half widths along x and y: wide at the plateau, narrowing to the shaft below it
    half = 14.5 + 21.5 * torch.exp(-((below / 30) ** 1.5))
    depth = 13 + 13 * torch.exp(-((below / 32) ** 1.5))
    middle = 3 * (1 - torch.exp(-below / 40))
    side = (((x + middle) / half) ** 2 + ((y + 2) / depth) ** 2).sqrt() - 1
    side = side * torch.minimum(half, depth)
    # the surface has a hollow under each condyle and two intercondylar spines between them
    dish = 0.5 * (((x.abs() - 21) / 10) ** 2).clamp(max=4)
    spines = 7.5 * torch.exp(-(((x + 4) / 3) ** 2)) + 6.5 * torch.exp(-(((x - 5) / 3) ** 2))
    spines = spines * torch.exp(-(((y + 3) / 13) ** 2))
    top = -5.0 + dish - 0.8 + spines
    return side, z - top


def ligaments(points: Tensor) -> list[Tensor]:
    """Compute the distances of cruciate and collateral ligaments, and of the tendons around."""
    return [
        # anterior and posterior cruciate ligament
        band(points, [(9, -18, 20), (4, -4, 8), (-2, 10, -3)], 3.6),
        band(points, [(-8, 2, 9), (-4, -12, 8), (0, -29, -8)], 4.2),
        # medial collateral ligament, two bands side by side
        band(points, [(-41.5, -2, 28), (-40.5, 0, 6), (-39.0, 1, -4), (-30, 3, -48)], 1.3),
        band(points, [(-41.5, 6, 28), (-40.5, 8, 6), (-39.0, 9, -4), (-30, 10, -48)], 1.3),
        # lateral collateral ligament
        band(points, [(40.5, -5, 24), (39.5, -12, 4), (35, -19, -15)], 1.7),
        # iliotibial band, two bands side by side
        band(points, [(37, 4, 90), (42, 8, 30), (40.5, 14, 6), (33, 20, -16)], 1.2),
        band(points, [(37, 14, 90), (42, 16, 30), (40.5, 19, 6), (31, 22, -16)], 1.2),
        # quadriceps and patellar tendon
        band(points, [(2, 40, 110), (1, 46, 46)], 5.0),
        band(points, [(1, 45, 8), (2, 32, -36)], 4.5),
    ]


def muscles(points: Tensor) -> Tensor:
    """Compute the distance of the nearest muscle above or below the joint."""
    parts = [
        # vastus medialis and lateralis
        ellipsoid(points, (-33, 8, 92), (21, 40, 66)),
        ellipsoid(points, (37, 6, 100), (20, 40, 78)),
        # calf: gastrocnemius, tibialis, soleus and peroneus
        ellipsoid(points, (-31, -14, -86), (17, 40, 62)),
        ellipsoid(points, (-22, -38, -22), (15, 18, 66)),
        ellipsoid(points, (22, -38, -22), (14, 17, 62)),
        ellipsoid(points, (33, 12, -92), (15, 26, 66)),
        ellipsoid(points, (22, -14, -100), (13, 14, 66)),
        ellipsoid(points, (42, -8, -96), (11, 22, 64)),
    ]
    return torch.stack(parts).amin(0)


def vessels(points: Tensor) -> list[tuple[str, Tensor]]:
    """List popliteal artery and vein and the saphenous vein as pairs of tissue and distance.

    The artery is painted as fascia: its fast flow leaves no signal.
    """
    artery = band(points, [(2, -27, 110), (1, -29, 20), (0, -29, -30), (6, -31, -110)], 3.2)
    vein = band(points, [(9, -28, 110), (8, -31, 20), (7, -31, -30), (12, -33, -110)], 4.0)
    saphenous = band(points, [(-46, -16, 90), (-45, -20, 0), (-42, -14, -90)], 1.6)
    return [("fascia", artery), ("blood", vein), ("blood", saphenous)]
