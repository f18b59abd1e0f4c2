"""The run folder: what is kept, what is refused, what is removed."""

import json
import os
import pickle

import h5py
import numpy as np
import pytest

from mrisem.errors import InputError
from mrisem.results.files import CURVE, Planned, RunFolder
from mrisem.results.record import Record, Scan
from mrisem.types import FailedScan

RECORD = Record(model="tv", mask="gaussian", settings={"seed": 0}, contents={"weights": "w"})


def scan(file, **other):
    facts = {"subject": "s", "shape": (4, 2, 8, 6), "header": "h", "kspace": "k"} | other
    return Scan(file=file, **facts)


def open_run(folder, slices=(0, 1, 2), record=RECORD, **other):
    plan = {name: Planned(scan(name, **other), "AXT2", frozenset(slices)) for name in ("a.h5",)}
    run = RunFolder(folder, record, plan)
    return run, run.open()


def part(index, value=1.0):
    return {
        "reconstruction": np.full((4, 4), index + value, np.float32),
        "image": np.full((8, 6), index, np.complex64),
        "mask": np.ones((8, 6), bool),
        "coarse_maps": np.ones((2, 3, 3), np.complex64),
        "slices": np.asarray(index),
        "acceleration": np.asarray(4.0),
        "data_consistency": np.asarray(0.1),
        "seconds": np.asarray(1.0),
    }


def keep(run, *indices, value=1.0):
    for index in indices:
        curves = np.array([(index, 0, "total", index / 3)], CURVE)
        run.keep("a.h5", index, part(index, value), curves)
        run.finish("a.h5")


def slices_of(folder):
    with h5py.File(folder / "reconstructions" / "a.h5") as file:
        np.testing.assert_array_equal(file["reconstruction"][:, 0, 0], file["slices"][()] + 1.0)
        return file["slices"][()].tolist()


def test_a_volume_keeps_how_its_input_was_simulated(tmp_path):
    plan = {"a.h5": Planned(scan("a.h5"), "AXT2", frozenset([0]), "seed=0 size=96")}
    run = RunFolder(tmp_path, RECORD, plan)
    run.open()
    keep(run, 0)
    with h5py.File(tmp_path / "reconstructions/a.h5") as file:
        assert file.attrs["simulation"] == "seed=0 size=96"


def test_slices_in_any_order_make_the_same_volume(tmp_path):
    files = []
    for order in ((0, 1, 2), (2, 0, 1)):
        folder = tmp_path / str(order[0])
        run, _ = open_run(folder)
        keep(run, *order)
        run.close()
        files.append([(folder / name).read_bytes() for name in ("reconstructions/a.h5", "fit.csv")])
    assert files[0] == files[1]


def test_more_slices_are_merged_into_a_volume_by_their_index(tmp_path):
    run, _ = open_run(tmp_path, (1,))
    keep(run, 1)
    run.close()
    run, done = open_run(tmp_path, (0, 1, 2, 3))
    assert done == {("a.h5", 1)}
    keep(run, 3, 0, 2)
    run.close()
    assert slices_of(tmp_path) == [0, 1, 2, 3]
    assert len((tmp_path / "fit.csv").read_text().splitlines()) == 5


def test_a_part_that_was_merged_before_a_kill_is_not_merged_again(tmp_path):
    run, _ = open_run(tmp_path, (0, 1))
    keep(run, 0, 1)
    parts = tmp_path / "reconstructions" / ".parts" / "a"
    run.keep("a.h5", 1, part(1, value=9.0), np.array([], CURVE))  # as if it had not been removed
    run, done = open_run(tmp_path, (0, 1, 2))
    assert done == {("a.h5", 0), ("a.h5", 1)}
    keep(run, 2)
    assert slices_of(tmp_path) == [0, 1, 2]
    assert not parts.exists()


def test_complete_parts_are_finished_at_the_start(tmp_path):
    run, _ = open_run(tmp_path)
    for index in range(3):
        run.keep("a.h5", index, part(index), np.array([], CURVE))
    assert not (tmp_path / "reconstructions" / "a.h5").exists()
    _, done = open_run(tmp_path)
    assert len(done) == 3
    assert slices_of(tmp_path) == [0, 1, 2]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 nothing", None])
def test_a_damaged_part_is_made_again_with_a_warning(tmp_path, damage):
    run, _ = open_run(tmp_path)
    keep(run, 0, 1)
    path = tmp_path / "reconstructions" / ".parts" / "a" / "1.npz"
    path.write_bytes(path.read_bytes()[:-200] if damage is None else damage)
    run = RunFolder(tmp_path, RECORD, run.plan)
    with pytest.warns(UserWarning, match=r"made again: .*1\.npz must be a complete \.npz"):
        assert run.open() == {("a.h5", 0)}


def test_a_damaged_volume_is_made_again_with_a_warning(tmp_path):
    run, _ = open_run(tmp_path)
    keep(run, 0, 1, 2)
    path = tmp_path / "reconstructions" / "a.h5"
    path.write_bytes(path.read_bytes()[:3000])
    run = RunFolder(tmp_path, RECORD, run.plan)
    with pytest.warns(UserWarning, match=r"made again: .*a\.h5 must be a complete HDF5 file"):
        assert run.open() == set()


def test_a_volume_with_a_slice_twice_is_refused(tmp_path):
    run, _ = open_run(tmp_path)
    keep(run, 0, 1, 2)
    with h5py.File(tmp_path / "reconstructions" / "a.h5", "a") as file:
        file["slices"][2] = 1
    with pytest.raises(InputError, match=r"each slice once, got \[0, 1, 1\]"):
        open_run(tmp_path)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"settings": {"seed": 1}}, "seed=0 there, 1 now"),
        ({"contents": {"weights": "v"}}, "content of.weights=w there, v now"),
    ],
)
def test_another_run_is_refused_and_named(tmp_path, other, said):
    run, _ = open_run(tmp_path)
    keep(run, 0)
    with pytest.raises(InputError, match=said):
        open_run(tmp_path, record=RECORD.model_copy(update=other))
    assert Record.load(tmp_path / "record.json") == RECORD


@pytest.mark.parametrize("indices", [(0,), (0, 1, 2)])
def test_another_scan_of_the_same_name_is_refused(tmp_path, indices):
    run, _ = open_run(tmp_path)
    keep(run, *indices)
    with pytest.raises(InputError, match=r"present a\.h5, got one with other subject, kspace"):
        open_run(tmp_path, subject="t", kspace="other")


def test_only_what_a_run_made_is_removed(tmp_path):
    run, _ = open_run(tmp_path)
    keep(run, 0, 1, 2)
    run.close()
    mine = [tmp_path / "notes.txt", tmp_path / "reconstructions" / "mine.h5"]
    mine += [tmp_path / "logs" / "a.h5", tmp_path / "reconstructions" / ".parts" / "b" / "0.npz"]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    RunFolder(tmp_path, RECORD, run.plan).clear()
    assert all(path.read_text() == "mine" for path in mine)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"notes.txt", "mine.h5", "a.h5", "0.npz"}
    assert open_run(tmp_path)[1] == set()


def test_what_a_run_made_is_known_without_its_record(tmp_path):
    names = ("a.h5", "b.h5", "c.h5", "d.h5")
    plan = {name: Planned(scan(name), "AXT2", frozenset([0, 1])) for name in names}
    run = RunFolder(tmp_path, RECORD, plan)
    run.open()
    for name, index in (("a.h5", 0), ("a.h5", 1), ("b.h5", 0)):
        run.keep(name, index, part(index), np.array([], CURVE))
        run.finish(name)
    (tmp_path / "record.json").unlink()
    parts = tmp_path / "reconstructions" / ".parts"
    theirs = [tmp_path / "reconstructions" / "c.h5", parts / "b" / "7.npz", parts / "d" / "0.npz"]
    with h5py.File(theirs[0], "w") as file:
        file["reconstruction"] = np.ones((2, 4, 4))
    for path, fields in zip(theirs[1:], ({"key", "scan"}, {"x"}), strict=True):
        path.parent.mkdir(exist_ok=True)
        np.savez(path, **dict.fromkeys(fields, np.zeros(1)))
    run.clear()
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(theirs)


def test_a_file_of_somebody_else_is_neither_replaced_nor_removed(tmp_path):
    path = tmp_path / "reconstructions" / "a.h5"
    path.parent.mkdir()
    path.write_text("mine")
    run = RunFolder(tmp_path, RECORD, {"a.h5": Planned(scan("a.h5"), "AXT2", frozenset([0]))})
    run.clear()
    with pytest.raises(InputError, match="move the file away"):
        run.open()
    assert path.read_text() == "mine"


def test_failed_slices_are_listed_once_and_forgotten_when_they_succeed(tmp_path):
    run, _ = open_run(tmp_path)
    run.fail(FailedScan("a.h5", "empty", (0,)))
    run.fail(FailedScan("a.h5", "empty", (1,)))
    keep(run, 2)
    run.close()
    (failed,) = json.loads((tmp_path / "failed.json").read_text())
    assert failed == {"file": "a.h5", "message": "empty", "slices": [0, 1]}
    assert slices_of(tmp_path) == [2]
    run, _ = open_run(tmp_path)
    keep(run, 0, 1)
    run.close()
    assert slices_of(tmp_path) == [0, 1, 2]
    assert not (tmp_path / "failed.json").exists()
    with h5py.File(tmp_path / "reconstructions" / "a.h5") as file:
        assert json.loads(file.attrs["failed"]) == []


def test_parts_hold_no_pickles(tmp_path):
    run, _ = open_run(tmp_path)
    keep(run, 0)
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        run.keep("a.h5", 1, part(1) | {"seconds": np.array({})}, np.array([], CURVE))
    canary, path = tmp_path / "canary", tmp_path / "reconstructions" / ".parts" / "a" / "0.npz"

    class Canary:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    with path.open("wb") as stream:
        np.savez(stream, **{n: np.array(Canary(), dtype=object) for n in ("key", "scan", "curves")})
    with pytest.warns(UserWarning, match="made again"):
        assert open_run(tmp_path)[1] == set()
    path.write_bytes(pickle.dumps(Canary()))  # np.load takes what is no archive for a pickle
    run.clear()
    assert not canary.exists()


def test_what_failed_in_other_processes_is_handed_over_to_the_one_that_closes(tmp_path):
    main, _ = open_run(tmp_path)
    for rank, index in ((1, 0), (2, 1)):
        other = RunFolder(tmp_path, RECORD, main.plan, shared=True)
        other.fail(FailedScan("a.h5", "empty", (index,)))
        other.hand_over(rank)
    keep(main, 2)
    main.close()
    (failed,) = json.loads((tmp_path / "failed.json").read_text())
    assert failed == {"file": "a.h5", "message": "empty", "slices": [0, 1]}
    assert slices_of(tmp_path) == [2]
    assert not (tmp_path / "reconstructions" / ".parts").exists()


def test_a_volume_names_its_own_failed_slices_alone(tmp_path):
    names = ("a.h5", "b.h5", "c.h5")
    plan = {name: Planned(scan(name), "AXT2", frozenset([0, 1])) for name in names}
    run = RunFolder(tmp_path, RECORD, plan)
    run.open()
    for position, name in enumerate(names):
        run.fail(FailedScan(name, f"empty {position}", (1,)))
    for name in names:
        run.keep(name, 0, part(0), np.array([], CURVE))
        run.finish(name)
    for position, name in enumerate(names):
        with h5py.File(tmp_path / "reconstructions" / name) as file:
            failed = json.loads(file.attrs["failed"])
        assert failed == [{"slices": [1], "message": f"empty {position}"}]


@pytest.mark.parametrize("foreign", ["key", "curves"])
def test_a_part_of_another_run_is_made_again_with_a_warning(tmp_path, foreign):
    run, _ = open_run(tmp_path)
    keep(run, 0)
    path = tmp_path / "reconstructions" / ".parts" / "a" / "0.npz"
    with np.load(path) as content:
        kept = dict(content)
    if foreign == "key":
        kept["key"] = np.str_("another")
    else:
        del kept["curves"]
    np.savez(path, **kept)
    with pytest.warns(UserWarning, match="made again: .*another run"):
        assert open_run(tmp_path)[1] == set()
    assert not path.exists()


def test_curves_of_a_volume_that_is_not_complete_are_written(tmp_path):
    run, _ = open_run(tmp_path)
    keep(run, 2, 0)
    run.close()
    assert (tmp_path / "fit.csv").read_text().splitlines() == [
        "file,slice,iteration,name,value",
        "a.h5,0,0,total,0.0",
        f"a.h5,2,0,total,{2 / 3}",
    ]


def run_of(folder, file, record=RECORD):
    run = RunFolder(folder, record, {file: Planned(scan(file), "AXT2", frozenset([0]))})
    run.open()
    return run


def test_curves_and_failures_outlive_a_command_on_other_files(tmp_path):
    for file in ("a.h5", "b.hdf5"):
        run = run_of(tmp_path, file)
        run.fail(FailedScan(f"bad_{file}", "damaged"))
        run.keep(file, 0, part(0), np.array([(0, 0, "total", 0.5)], CURVE))
        run.finish(file)
        run.close()
    lines = (tmp_path / "fit.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == ["a.h5", "b.hdf5"]
    failed = json.loads((tmp_path / "failed.json").read_text())
    assert [entry["file"] for entry in failed] == ["bad_a.h5", "bad_b.hdf5"]


def test_a_volume_damaged_in_its_data_is_kept_aside_and_no_shorter_one_is_written(tmp_path):
    run, _ = open_run(tmp_path, (0, 1))
    keep(run, 0, 1)
    path = tmp_path / "reconstructions" / "a.h5"
    run, done = open_run(tmp_path, (0, 1, 2))
    assert len(done) == 2
    with h5py.File(path, "a") as file:  # damaged where `open` does not look
        del file["image"]
        file["image"] = h5py.SoftLink("/image")
    with (
        pytest.warns(UserWarning, match="made again"),
        pytest.raises(InputError, match="the same command makes its slices again"),
    ):
        keep(run, 2)
    assert path.with_name("a.h5.damaged").is_file()
    run, done = open_run(tmp_path, (0, 1, 2))
    assert done == {("a.h5", 2)}
    keep(run, 0, 1)
    assert slices_of(tmp_path) == [0, 1, 2]


def test_clear_removes_another_runs_volumes_and_embeddings_and_leaves_its_own(tmp_path):
    other = RECORD.model_copy(update={"settings": {"seed": 7}})
    for file, record in (("a.h5", RECORD), ("b.h5", RECORD)):
        run = run_of(tmp_path, file, record)
        run.keep(file, 0, part(0), np.array([], CURVE))
        run.finish(file)
        (tmp_path / "embeddings" / file).mkdir(parents=True)
        (tmp_path / "embeddings" / file / "0.npz").write_text("ours")
    plan = {"a.h5": Planned(scan("a.h5"), "AXT2", frozenset([0]))}
    RunFolder(tmp_path, RECORD, plan).clear()  # the same run on fewer files
    assert not (tmp_path / "reconstructions" / "a.h5").exists()
    assert (tmp_path / "reconstructions" / "b.h5").exists()
    assert [p.parent.name for p in (tmp_path / "embeddings").glob("*/*")] == ["b.h5"]
    RunFolder(tmp_path, other, plan).clear()  # another run
    assert not (tmp_path / "reconstructions" / "b.h5").exists()
    assert not [*(tmp_path / "embeddings").glob("*/*")]
