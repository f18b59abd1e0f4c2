import h5py
import pytest

from mrisem.cli import VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_cli_help_of_every_verb(mrisem, verb):
    code, out, _ = mrisem(verb, "--help")
    assert code == 0
    assert "Examples" in out


def test_cli_without_a_verb_lists_them(mrisem):
    code, out, _ = mrisem()
    assert code == 0
    assert all(verb in out for verb in VERBS)


def test_cli_unknown_verb_is_one_line(mrisem):
    code, _, err = mrisem("reconstrukt")
    assert code == 1
    assert err.count("\n") == 1
    assert "reconstruct" in err


@pytest.mark.parametrize(
    "words",
    [
        ["--nope"],
        ["nope"],
        ["reconstruct", "--nope"],
        ["reconstruct", "-x", "model=unet"],
        ["reconstruct", "--nope=3"],
        ["reconstruct", "--cfg", "nope"],
        ["reconstruct", "--cfg"],
        ["reconstruct", "--help", "--nope"],
        ["reconstruct", "--help", "mask.acelleration=4"],
        ["-sc", "nope"],
    ],
)
def test_cli_wrong_flags_are_one_line(mrisem, words):
    code, out, err = mrisem(*words)
    assert code == 1
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("mrisem")


def says(mrisem, tmp_path, expected, *arguments):
    """A bad call ends with 1, says what is wrong in one line, and leaves nothing behind."""
    folder = tmp_path / "run"
    code, _, err = mrisem("reconstruct", *arguments, f"output_dir={folder}")
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 1, err
    assert len(lines) == 1, err
    assert expected in lines[0]
    assert not folder.exists()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=nosuch"], "Could not find 'model/nosuch'"),
        (["mask.acelleration=4"], "acelleration"),
        (["data.acquisition=AXT9"], "AXT9"),
        (["mask.acceleration=60"], "calibration"),
        (["model=zero_filled", "prior=image_same"], "guides only networks that are fitted"),
        (["prior=image_same", "prior.levels=[1,2,99]"], "level"),
        (["prior=image_same", "auxiliary.root=/nowhere"], "/nowhere"),
        (["prior=image_same", "auxiliary.acquisition=AXT1POST"], "AXT1POST"),
        (["model.checkpoint=/nowhere.ckpt"], "model.checkpoint"),
    ],
)
def test_cli_bad_configuration_is_one_line(mrisem, tmp_path, simulated, overrides, expected):
    data = ["scale=smoke", "data=brain", f"data.root={simulated / 'brain'}"]
    says(mrisem, tmp_path, expected, *data, *overrides)


def test_cli_missing_and_empty_roots_are_one_line(mrisem, tmp_path):
    says(mrisem, tmp_path, "data.root", "data=brain")
    says(mrisem, tmp_path, "nowhere", "data=brain", f"data.root={tmp_path / 'nowhere'}")
    (tmp_path / "empty" / "multicoil_val").mkdir(parents=True)
    says(mrisem, tmp_path, "empty", "data=brain", f"data.root={tmp_path / 'empty'}")


@pytest.fixture
def spoilt(simulated, tmp_path):
    """Return a function that copies one brain file, changes it, and returns its root."""
    source = sorted((simulated / "brain" / "multicoil_val").glob("*AXT2*.h5"))[0]

    def make(change):
        folder = tmp_path / "spoilt" / "multicoil_val"
        folder.mkdir(parents=True)
        (folder / "bad.h5").write_bytes(source.read_bytes())
        change(folder / "bad.h5")
        return folder.parent

    return make


def with_file(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def replace_kspace(file, values):
    del file["kspace"]
    file["kspace"] = values


def put_nan(file):
    kspace = file["kspace"][()]
    kspace[0, 0, 5, 60] = float("nan")
    replace_kspace(file, kspace)


@pytest.mark.parametrize(
    ("change", "mask", "expected"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "gaussian", "HDF5"),
        (lambda p: with_file(p, lambda f: replace_kspace(f, f["kspace"][0])), "gaussian", "slice"),
        (lambda p: with_file(p, put_nan), "gaussian", "NaN"),
        (
            lambda p: with_file(p, lambda f: f.create_dataset("mask", data=[1, 0, 1])),
            "from_file",
            "mask",
        ),
    ],
)
def test_cli_bad_files_are_one_line(mrisem, tmp_path, spoilt, change, mask, expected):
    root = spoilt(change)
    arguments = ["scale=smoke", "data=brain", f"data.root={root}", f"mask={mask}"]
    says(mrisem, tmp_path, expected, *arguments, "model=zero_filled")


def test_cli_skips_bad_files_when_told_to(mrisem, tmp_path, simulated, spoilt):
    root = spoilt(lambda path: with_file(path, put_nan))
    good = sorted((simulated / "brain" / "multicoil_val").glob("*AXT2*.h5"))[0]
    (root / "multicoil_val" / good.name).write_bytes(good.read_bytes())
    code, out, err = mrisem(
        "reconstruct",
        "scale=smoke",
        f"data.root={root}",
        "model=zero_filled",
        "on_error=skip",
        f"output_dir={tmp_path / 'run'}",
    )
    assert code == 2
    assert "bad.h5" in out + err
    slices = {}
    for path in (tmp_path / "run" / "reconstructions").iterdir():
        with h5py.File(path) as file:
            slices[path.name] = file["slices"][()].tolist()
    assert slices == {"bad.h5": [1], good.name: [0, 1]}  # all but the one with a NaN


def test_warning_of_the_configuration_is_one_line_without_code(fork):
    process = fork("mrisem", "reconstruct", "prior=none", "encoder=vgg16", "data.root=/nowhere")
    _, err = process.communicate()
    assert process.returncode == 1
    assert "mrisem: warning: encoder has no effect with prior=none\n" in err
    assert ".py:" not in err
