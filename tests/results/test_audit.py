"""The audit of run folders in which the prior changed one line of k-space."""

import base64
import csv
import io

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from mrisem.errors import InputError
from mrisem.physics.fourier import center_crop, ifft2c
from mrisem.report.changes import Maps, choose_rows, difference_window, draw_changes, load_changes
from mrisem.report.figures import DIFFERENCE_MAP, as_png, image_png
from mrisem.report.sections import Section, draw_maps
from mrisem.results.audit import audit, audit_summary, audit_tables, find_pairs
from mrisem.results.evaluated import Evaluated
from mrisem.results.record import Scan
from mrisem.results.runs import find_runs
from mrisem.results.tables import as_csv, as_latex, as_text

PNG = image_png(np.eye(4), 1.0)
Y, X, SIZE = 48, 24, (24, 20)


class Scene:
    """Files of one coil, k-space of equal energy everywhere; every second column is measured."""

    def __init__(self, root, make_record):
        self.make_record = make_record
        self.root, self.targets, self.runs = root, root / "multicoil_val", root / "runs"
        generator = torch.Generator().manual_seed(0)
        phase = 6.3 * torch.rand(2, Y, X, generator=generator)
        self.kspace = torch.polar(torch.ones(2, Y, X), phase)
        self.mask = torch.zeros(Y, X, dtype=torch.bool)
        self.mask[:, ::2] = True
        self.targets.mkdir()
        with h5py.File(self.targets / "a.h5", "w") as file:  # no k-space: only the target
            file["reconstruction_rss"] = self.magnitude(self.kspace)

    @staticmethod
    def magnitude(kspace):
        return center_crop(ifft2c(kspace).abs(), SIZE).contiguous().numpy()

    def add(
        self, name, prior="none", kspace=None, words=(), mask=None, keep=True, n_coils=1, other=""
    ):
        kspace = self.kspace if kspace is None else kspace
        run = self.runs / name
        method = "unrolled" if prior == "none" else f"unrolled + {prior}"
        record = self.make_record(method, words)
        scan = Scan(file="a.h5", subject="p", shape=(2, 1, Y, X), header="", kspace=other)
        (run / "reconstructions").mkdir(parents=True)
        record.save(run / "record.json")
        with h5py.File(run / "reconstructions" / "a.h5", "w") as file:
            file["reconstruction"] = self.magnitude(kspace)
            if keep:
                file["image"] = ifft2c(kspace).numpy()
                file["mask"] = np.stack([self.mask if mask is None else mask] * len(kspace))
                maps = torch.full((2, n_coils, 64, 64), n_coils**-0.5, dtype=torch.complex64)
                file["coarse_maps"] = maps.numpy()
            file["slices"] = np.arange(len(kspace))
            file.attrs.update(acquisition="AXT2", record=record.model_dump_json())
            file.attrs["scan"] = scan.model_dump_json()
        return run

    def pairs(self):
        return find_pairs(find_runs([self.runs]))


@pytest.fixture
def scene(tmp_path, make_record):
    return Scene(tmp_path, make_record)


def test_audit_finds_a_line_that_the_prior_doubled(scene):
    changed = scene.kspace.clone()
    changed[0, :, 5] *= 2
    changed[1, :, 8] *= 2
    scene.add("1")
    scene.add("2", "image_same", changed)
    ((pair,), alone) = scene.pairs()
    assert alone == []
    rows = audit(pair, scene.targets)
    for row, region, other in zip(
        rows, ("unmeasured", "measured"), ("measured", "unmeasured"), strict=True
    ):
        assert row[f"changed_{region}"] == pytest.approx(1 / 12, rel=1e-4)  # of 12 lines, 1 more
        assert row[f"added_{region}"] == pytest.approx(3 / 12, rel=1e-4)  # (2^2 - 1) of it
        assert row[f"removed_{region}"] == pytest.approx(0, abs=1e-5)
        for what in ("changed", "added", "removed"):
            assert row[f"{what}_{other}"] == pytest.approx(0, abs=1e-5)
        assert row["false_detail"] == 1.0  # without the prior it was the target
    first, target = scene.magnitude(changed)[0], scene.magnitude(scene.kspace)[0]
    expected = np.linalg.norm(first - target) ** 2 / np.linalg.norm(target) ** 2
    assert rows[0]["difference"] == pytest.approx(expected, rel=1e-4)
    (entry,) = audit_summary(rows)
    assert entry["changed_measured"]["mean"] == pytest.approx(1 / 24, rel=1e-4)
    (table,) = audit_tables([entry])
    assert table.title == "prior against no prior: brain, gaussian R=4"
    row = table.rows[0]
    assert (row.method, row.n_subjects, row.n) == ("unrolled + image_same", 1, 2)
    headings = [column.heading for column in table.columns]
    assert table.rows[0].cells[headings.index("changed measured")].text == "4.17 %"
    assert not any(cell.best for cell in table.rows[0].cells)  # no change is no merit
    written = list(csv.DictReader(io.StringIO(as_csv([table]))))
    (changed,) = (row for row in written if row["metric"] == "changed_measured")
    assert float(changed["mean"]) == pytest.approx(1 / 24, rel=1e-4)
    assert (changed["group"], changed["n_slices"]) == (table.title, "2")
    assert r" & 4.17 \% & " in as_latex([table])


def test_audit_weighs_coils_by_the_maps_that_the_run_kept(scene):
    changed = scene.kspace.clone()
    changed[0, :, 5] *= 2
    scene.add("1", n_coils=3)
    scene.add("2", "image_same", changed, n_coils=3)
    ((pair,), _) = scene.pairs()
    row = audit(pair, scene.targets)[0]
    assert row["added_unmeasured"] == pytest.approx(3 / 12, rel=1e-4)
    assert row["changed_measured"] == pytest.approx(0, abs=1e-5)


def test_pairs_are_runs_that_differ_in_the_prior_only(scene):
    scene.add("1")
    scene.add("2", "image_same", words=["prior.weight=0.1", "encoder=clip", "auxiliary.root=x"])
    scene.add("3", "image_cross")
    scene.add("4", "image_same", words=["seed=1"])
    scene.add("5", words=["scale.fit.iterations=9"])
    pairs, alone = scene.pairs()
    names = {(pair.guided.folder.name, pair.plain.folder.name) for pair in pairs}
    assert names == {("2", "1"), ("3", "1")}
    assert [run.folder.name for run in alone] == ["4"]


def test_audit_without_complex_images_says_so(scene, caplog):
    changed = 1.5 * scene.kspace
    scene.add("1", keep=False)
    scene.add("2", "image_same", changed)
    ((pair,), _) = scene.pairs()
    rows = audit(pair, scene.targets)
    assert np.isnan([row["changed_measured"] for row in rows]).all()
    assert [row["difference"] for row in rows] == pytest.approx([0.25] * 2, rel=1e-4)
    assert "skip_existing=false" in caplog.text
    (table,) = audit_tables(audit_summary(rows))
    assert "25 %" in as_text(table)
    assert [column.name for column in table.columns] == ["difference", "false_detail"]


def test_audit_refuses_runs_of_other_samples(scene):
    scene.add("1")
    scene.add("2", "image_same", mask=~scene.mask)
    ((pair,), _) = scene.pairs()
    with pytest.raises(InputError, match="the same samples"):
        audit(pair, scene.targets)


def test_audit_refuses_runs_of_other_scans_and_other_sizes(scene):
    plain = scene.add("1")
    scene.add("2", "image_same", other="changed")
    ((pair,), _) = scene.pairs()
    with pytest.raises(InputError, match="the same scan"):
        audit(pair, scene.targets)
    with h5py.File(plain / "reconstructions/a.h5", "a") as file:
        del file.attrs["scan"]
        image = file["reconstruction"][:, 1:]
        del file["reconstruction"]
        file["reconstruction"] = image
    with pytest.raises(InputError, match="the same size"):
        audit(pair, scene.targets)


def test_audit_figure_shows_the_slices_that_changed_most(scene):
    changed = scene.kspace.clone()
    changed[1] *= 1.04
    scene.add("1")
    scene.add("2", "image_same", changed)
    ((pair,), _) = scene.pairs()
    rows = audit(pair, scene.targets)
    assert [row["slice"] for row in choose_rows(rows, 1)] == [1]
    assert [row["slice"] for row in choose_rows(rows, 9)] == [1, 0]
    maps = load_changes(rows, (pair.plain.folder, pair.guided.folder, scene.targets), 2)
    assert [one.title for one in maps] == ["a, slice 1", "a, slice 0"]
    assert len(as_png(draw_changes(maps, "a against b"))) > 10_000


@pytest.mark.parametrize(("change", "window"), [(0.004, 0.005), (0.03, 0.05), (7.0, 1.0)])
def test_difference_window_is_the_next_round_one(change, window):
    image = np.ones((8, 8))
    signs = np.where(np.arange(64).reshape(8, 8) % 2, 1, -1)
    assert difference_window([Maps("", image, image, image + change * signs)]) == window


def picture_of(tile):
    png = base64.b64decode(tile.uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_page_shows_signed_differences_dark_at_zero_bluish_below_reddish_above(scene):
    scene.add("1")
    scene.add("2", "image_same", 1.5 * scene.kspace)
    ((pair,), _) = scene.pairs()
    rows = audit(pair, scene.targets)
    folders = {"run": str(pair.guided.folder), "without_run": str(pair.plain.folder)}
    rows = [row | folders for row in rows]
    path = scene.root / "audit.png"
    path.write_bytes(PNG)
    found = Evaluated(
        pictures={pair.guided.folder: path}, targets={pair.guided.folder: scene.targets}
    )
    section = Section("brain", [pair.plain, pair.guided], [], {})
    (drawn,) = draw_maps(section, rows, found)
    assert section.pictures == {path.name: PNG}
    assert drawn["title"] == "unrolled + image_same against unrolled"
    assert len(drawn["slices"]) == 2
    *images, changed, wanted = (picture_of(view) for view in drawn["slices"][0][1])
    assert len(images) == 3
    red, _, blue = np.moveaxis(changed, -1, 0)
    assert (red - blue).min() > -10  # all of it became brighter
    assert (red - blue).max() > 90
    neutral = np.array(DIFFERENCE_MAP(128, bytes=True))[:3]
    assert (wanted == neutral).all()  # without the prior it was the target
    (scene.targets / "a.h5").unlink()
    path.write_bytes(b"another file")
    with pytest.raises(InputError, match="must be a PNG picture"):
        draw_maps(section, rows, found)
    path.write_bytes(PNG)
    (fallen,) = draw_maps(section, rows, found)
    assert fallen["slices"] == []
    assert base64.b64decode(fallen["image"].uri.removeprefix("data:image/png;base64,")) == PNG


def test_difference_map_is_as_light_on_both_sides_and_darkest_at_zero():
    shades = DIFFERENCE_MAP(np.linspace(0, 1, 101))[:, :3]
    linear = np.where(shades <= 0.04045, shades / 12.92, ((shades + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)
    np.testing.assert_allclose(lightness, lightness[::-1], atol=3)
    assert (np.diff(lightness[50:]) > 0).all()
    assert lightness[50] < 15
