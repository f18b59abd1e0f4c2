"""Export as ISMRMRD: an HDF5 file for each scan, with an image for each slice."""

from __future__ import annotations

from pathlib import Path

from mrisem.files import whole
from mrisem.results.export.placed import PlacedImages

GROUP, IMAGES = "dataset", "image_0"


def write(scan: PlacedImages, path: Path) -> None:
    """Write magnitudes ``(channel, z, y, x)`` float32, each with its position (LPS, mm)."""
    import ismrmrd

    _, rows, columns = scan.images.shape
    spacing = scan.voxel_mm
    along_x, along_y, across = scan.directions
    meta = ismrmrd.Meta({"DataRole": "Image", "ImageComments": scan.description})
    if not scan.placed:
        meta["PositionAndOrientation"] = "not known"
    with whole(path) as partial, ismrmrd.Dataset(str(partial), GROUP) as file:
        for index, (image, number) in enumerate(zip(scan.images, scan.numbers, strict=True)):
            entry = ismrmrd.Image.from_array(image[None, None], transpose=False)
            entry.image_type, entry.image_index = ismrmrd.IMTYPE_MAGNITUDE, index + 1
            entry.slice, entry.image_series_index = number, 1
            entry.field_of_view = columns * spacing[0], rows * spacing[1], spacing[2]
            # ISMRMRD states the centre of an image; its x, the columns, runs along read_dir
            entry.position = tuple(scan.point((columns - 1) / 2, (rows - 1) / 2, number))
            entry.read_dir, entry.phase_dir = tuple(along_x), tuple(along_y)
            entry.slice_dir = tuple(across)
            entry.attribute_string = meta.serialize()
            file.append_image(IMAGES, entry)
