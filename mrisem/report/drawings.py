"""The figures of a section, drawn for the page and kept as PNG files."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from mrisem.report import figures
from mrisem.report.audit_figure import DIFFERENCE_MAP, NAMES, Maps, difference_window
from mrisem.report.changes import Changes
from mrisem.report.curve_figure import loss_curves, similarity_curves
from mrisem.report.curves import paired_sides
from mrisem.report.embedding_figure import embedding_figure
from mrisem.report.group import Group
from mrisem.report.inline import Pictures, data_uri, in_both_inks, slug, webp_uri
from mrisem.report.panels import Panel
from mrisem.report.summary import Column, labels_of
from mrisem.report.sweep_figure import Points, sweep_curves, sweep_points
from mrisem.report.sweeps import Sweep

Drawn = dict[str, str]
_MOST_MAPS = 3  # slices of each run


def draw_panel(panel: Panel, title: str, pictures: Pictures) -> dict[str, object]:
    """Draw one slice of all methods, tile by tile for the page and whole for the file."""
    name = f"panel_{slug(title)}_{slug(panel.file.removesuffix('.h5'))}_{panel.slice}.png"
    if panel.tiles:
        pictures[name] = figures.as_png(figures.panel_figure(panel))
    top = panel.error_window * panel.grey
    tiles = [
        {
            "label": tile.label,
            "row": tile.row,
            "image": data_uri(figures.image_png(tile.image, panel.grey)),
            "error": None
            if tile.error is None
            else data_uri(figures.image_png(tile.error, top, figures.ERROR_MAP)),
            "ratio": f"{tile.image.shape[1]} / {tile.image.shape[0]}",
        }
        for tile in panel.tiles
    ]
    return {"panel": panel, "tiles": tiles, "percent": f"{100 * panel.error_window:g}"}


def draw_dots(column: Column, group: Group, pictures: Pictures) -> Drawn:
    """Draw one score of every slice."""
    name = f"dots_{slug(group.table.title)}_{column.name}.png"
    means = ", ".join(
        f"{row.method} {cell.text}"
        for row in group.table.rows
        for shown, cell in zip(group.table.columns, row.cells, strict=True)
        if shown == column
    )
    alt = f"{column.label} of every slice for each method; means: {means}"
    return in_both_inks(
        name, alt, pictures, lambda ink: figures.paired_dots(group.rows, column, ink)
    )


def draw_sweep(
    sweep: Sweep, title: str, columns: Sequence[Column], pictures: Pictures
) -> list[Drawn]:
    """Draw every score that the sweep has over its parameter."""
    drawn = []
    for column in columns:
        points = sweep_points(sweep, column)
        if points:
            name = f"sweep_{slug(title)}_{slug(sweep.parameter)}_{column.name}.png"
            alt = f"Mean {column.label} over {sweep.parameter}; {_told(points, column)}"
            draw = partial(sweep_curves, sweep, column, points)
            drawn.append(in_both_inks(name, alt, pictures, draw))
    return drawn


def _told(points: Points, column: Column) -> str:
    """Return the means of a sweep in words."""
    return "; ".join(
        f"{line}: " + ", ".join(f"{at['mean']:.{column.digits}f} at {x}" for x, at in found.items())
        for line, found in points.items()
    )


def draw_curves(group: Group, pictures: Pictures) -> list[Drawn]:
    """Draw every curve, the similarities to both sides of the bank in one figure a level."""
    sides = paired_sides(group.curves)
    paired = {name for names in sides.values() for name in names}
    single = [_loss(name, group, pictures) for name in group.curves if name not in paired]
    return single + [_similarity(level, names, group, pictures) for level, names in sides.items()]


def _loss(name: str, group: Group, pictures: Pictures) -> Drawn:
    series, labels = group.curves[name], labels_of(group.rows)
    alt = f"{name} over the iterations of per-scan fitting for {', '.join(series)}"
    file = f"loss_{slug(group.table.title)}_{slug(name)}.png"
    return in_both_inks(file, alt, pictures, lambda ink: loss_curves(name, series, labels, ink))


def _similarity(level: str, names: tuple[str, str], group: Group, pictures: Pictures) -> Drawn:
    positives, negatives = (group.curves[name] for name in names)
    labels = labels_of(group.rows)
    alt = (
        f"mean similarity to the bank's positives and negatives at level {level} over the "
        f"iterations of per-scan fitting for {', '.join(positives)}"
    )
    file = f"loss_{slug(group.table.title)}_similarity_{slug(level)}.png"
    title = f"similarity to the bank, level {level}"
    return in_both_inks(
        file,
        alt,
        pictures,
        lambda ink: similarity_curves(title, (positives, negatives), labels, ink),
    )


def draw_embeddings(group: Group, pictures: Pictures) -> list[Drawn]:
    """Draw the embeddings of every run that kept them."""
    drawn = []
    for number, picture in enumerate(group.pictures):
        # Two runs of one label on different files have a picture each: the number tells them apart.
        named = (group.table.title, picture.label, picture.acquisition, str(number))
        name = f"embedding_{slug(' '.join(named))}.png"
        alt = f"Embeddings of {picture.label}, {picture.acquisition}: {picture.caption}"
        both = in_both_inks(name, alt, pictures, partial(embedding_figure, picture))
        known = {"label": picture.label, "acquisition": picture.acquisition}
        drawn.append(both | known | {"caption": picture.caption})
    return drawn


def draw_maps(title: str, changes: Changes, pictures: Pictures) -> dict[str, Any]:
    """Draw what a prior changed, tile by tile; keep the evaluation's picture as a file.

    Args:
        title: what is compared.
        changes: where its images are; where they are not, the page shows the picture.
        pictures: the files so far.
    """
    png = pictures[changes.picture.name] = changes.picture.read_bytes()
    maps = changes.load(_MOST_MAPS)
    alt = f"Images and signed differences of {title}: what the prior changed, and should have"
    if not maps:
        return {"title": title, "alt": alt, "image": webp_uri(png), "slices": []}
    window = difference_window(maps)
    slices = [{"title": one.title, "tiles": _tiles(one, window)} for one in maps]
    return {"title": title, "slices": slices, "percent": f"{100 * window:g}"}


def _tiles(one: Maps, window: float) -> list[Drawn]:
    """Draw the images of a slice, then its signed differences within ``-window .. window``."""
    height, width = one.target.shape
    drawn = [figures.image_png(image, one.top) for image in one.images]
    drawn += [figures.image_png(c + window, 2 * window, DIFFERENCE_MAP) for c in one.changes]
    return [
        {"label": name, "image": data_uri(png), "ratio": f"{width} / {height}"}
        for name, png in zip(NAMES, drawn, strict=True)
    ]
