"""What the loggers wrote, read back; wandb in a process that has no network at all."""

import csv
import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FIT = {"loss/data_consistency", "loss/semantic", "similarity/4/positives", "iteration", "scan"}
CLI = """
import json, sys
from hydra.core.global_hydra import GlobalHydra
from mrisem.cli import main
for sys.argv in json.loads(sys.argv[1]):
    GlobalHydra.instance().clear()
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


def no_network():
    """Command that runs another one without any network interface, where the system allows."""
    command = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"]).returncode:
        return []
    return command


@pytest.fixture(scope="module")
def arguments(simulated):
    select = ["data.acquisition=CORPD_FBK", "data.max_slices=1"]
    return ["data=knee", f"data.root={simulated / 'knee'}", "scale=smoke", *select]


@pytest.fixture(scope="module")
def offline(arguments, tmp_path_factory):
    """Folder of a run that was reconstructed and evaluated with logger=wandb and no key."""
    folder = tmp_path_factory.mktemp("wandb")
    hidden = ("WANDB_", "NETRC")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    environment |= {"HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    sweep = [*arguments, "prior=image_same", "prior.weight=0.02,0.03"]
    commands = [["reconstruct", "--multirun", *sweep], ["evaluate"]]
    more = ["logger=wandb", f"output_dir={folder / 'sweep'}"]
    words = json.dumps([["mrisem", *command, *more] for command in commands])
    done = subprocess.run(
        [*no_network(), sys.executable, "-c", CLI, words],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "wandb: no key is known, so offline" in done.stdout
    return folder / "sweep"


def records(path):
    """Records of a ``.wandb`` file: a LevelDB log behind seven bytes of header."""
    from wandb.proto import wandb_internal_pb2

    data, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        position += 7 + length
        parts += data[position - length : position]
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def read_back(folder, job):
    """Runs of one job type: facts, keys of the history, its rows of numbers, the configuration."""
    found = []
    for path in sorted(folder.glob("*/logs/wandb/offline-run-*/*.wandb")):
        rows, config, run = [], {}, None
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run = record.run
                config |= {item.key: item.value_json for item in run.config.update}
            if kind == "config":
                config |= {item.key: item.value_json for item in record.config.update}
            if kind == "history":
                items = record.history.item
                rows.append({i.key or "/".join(i.nested_key): i.value_json for i in items})
        if run.job_type == job:
            found.append((path.parent, run, rows, config))
    return found


def test_wandb_offline_keeps_history_tables_pictures_and_configuration(offline):
    runs = read_back(offline, "reconstruct")
    assert len(runs) == 2
    for folder, run, rows, config in runs:
        assert run.run_group == "sweep"
        assert run.project == "mrisem"
        keys = {key for row in rows for key in row}
        assert keys >= FIT
        iterations = [json.loads(row["iteration"]) for row in rows if "iteration" in row]
        assert iterations == sorted(iterations)
        assert len(iterations) >= 3
        assert json.loads(config["prior"])["name"] == "image_same"
        assert (folder / "files" / "media" / "images" / "image").is_dir()
        (table,) = (folder / "files" / "media" / "table").glob("scans_*.json")
        assert json.loads(table.read_text())["columns"] == ["scan", "file", "slice"]
    weights = {json.loads(config["prior"])["weight"] for *_, config in runs}
    assert weights == {0.02, 0.03}


def test_wandb_scores_are_those_of_the_table(offline):
    with (offline / "metrics.csv").open() as stream:
        written = {row["run"]: row for row in csv.DictReader(stream)}
    runs = read_back(offline, "evaluate")
    assert {run.display_name for _, run, *_ in runs} == set(written)
    for folder, run, rows, _ in runs:
        logged = {k: json.loads(v) for row in rows for k, v in row.items() if k == "score/psnr"}
        assert logged["score/psnr"] == pytest.approx(float(written[run.display_name]["psnr"]))
        assert list((folder / "files" / "media" / "images" / "image").glob("comparison_*.png"))
        (table,) = (folder / "files" / "media" / "table").glob("slices_*.json")
        assert len(json.loads(table.read_text())["data"]) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of wandb-workspaces itself
def test_dashboard_refers_to_what_is_logged_only(offline):
    pytest.importorskip("wandb_workspaces", reason="needs wandb-workspaces")
    spec = importlib.util.spec_from_file_location("dashboard", EXPERIMENTS / "dashboard.py")
    dashboard = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dashboard)
    logged = {
        key
        for job in ("reconstruct", "evaluate")
        for *_, rows, _ in read_back(offline, job)
        for row in rows
        for key in row
    }
    made = dashboard.workspace("someone", "mrisem", ["prior.weight"])
    assert [section.name for section in made.sections] == [
        "Losses", "Similarities", "Scores", "Images",
    ]  # fmt: skip
    for panel in (panel for section in made.sections for panel in section.panels):
        lines = getattr(panel, "y", None) or getattr(panel, "metrics", None) or []
        for name in lines:
            assert getattr(name, "name", name) in logged
        for key in getattr(panel, "media_keys", None) or []:
            assert f"{key}/_type" in logged


def test_csv_logger_keeps_the_curves_of_every_scan(mrisem, arguments, tmp_path):
    run = ["reconstruct", *arguments, "prior=image_same", "logger=csv", f"output_dir={tmp_path}/r"]
    code, _, err = mrisem(*run)
    assert code == 0, err
    with (tmp_path / "r/logs/csv/reconstruct/metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert set(rows[0]) >= FIT
    with (tmp_path / "r" / "fit.csv").open() as stream:
        kept = [r for r in csv.DictReader(stream) if r["name"] == "semantic"]
    logged = [row for row in rows if row["loss/semantic"]]
    for mine, theirs in zip(logged, kept, strict=True):
        assert float(mine["loss/semantic"]) == pytest.approx(float(theirs["value"]), rel=1e-5)
        assert float(mine["iteration"]) == float(theirs["iteration"])
    text = (tmp_path / "r/logs/csv/reconstruct/hparams.yaml").read_text()
    assert yaml.safe_load(text)["prior"]["name"] == "image_same"


def test_tensorboard_logger_keeps_training_and_pictures(mrisem, simulated, tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = ["data=knee", f"data.root={simulated / 'knee'}", "scale=smoke", "logger=tensorboard"]
    train = ["train", *data, "model=unet", "data.train_subjects=auxiliary"]
    code, _, err = mrisem(*train, f"output_dir={tmp_path}/t")
    assert code == 0, err
    events = EventAccumulator(str(tmp_path / "t/logs/tensorboard/train")).Reload()
    assert any(tag.startswith("train/") for tag in events.Tags()["scalars"])
    assert (tmp_path / "t" / "metrics.csv").is_file()  # the run's own table stays
    select = ["data.acquisition=CORPD_FBK", "data.max_slices=1", f"output_dir={tmp_path}/r"]
    assert mrisem("reconstruct", *data, *select)[0] == 0
    events = EventAccumulator(str(tmp_path / "r/logs/tensorboard/reconstruct")).Reload()
    assert "loss/data_consistency" in events.Tags()["scalars"]
    (tag,) = events.Tags()["images"]
    assert tag.startswith("image/reconstruction")


def test_wandb_mode_is_offline_without_a_key(monkeypatch, tmp_path):
    from mrisem.verbs.loggers import wandb_mode

    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wandb_mode() == "offline"
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    assert wandb_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode() == "disabled"


def test_dashboard_without_a_key_says_what_to_do(tmp_path):
    pytest.importorskip("wandb_workspaces")
    known = {name: value for name, value in os.environ.items() if name != "WANDB_API_KEY"}
    done = subprocess.run(
        [sys.executable, EXPERIMENTS / "dashboard.py", "someone", "mrisem"],
        env=known | {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "wandb login" in done.stderr
    assert "Traceback" not in done.stderr
