"""Run folders damaged at random: evaluate and report end well, or say what is wrong in a line."""

import json
import os
import random
import shutil
import traceback
import warnings

import h5py
import numpy as np
import pytest
import yaml

from mrisem.errors import InputError

N_FOLDERS = int(os.environ.get("MRISEM_FUZZ", "30"))
STRANGE = (
    *(
        None,
        True,
        -1,
        0,
        10**30,
        1e308,
        float("nan"),
        "",
        "x",
        "../../etc/passwd",
        "${oc.env:HOME}",
    ),
    *([], {}, [[]], {"a": {"b": [1]}}, "\x00", "a\nb", "=1+1", ["x"] * 9, "$\\frac{"),
)


def flip(path, dice):
    data = bytearray(path.read_bytes())
    for _ in range(dice.choice((1, 4, 60))):
        if data:
            data[dice.randrange(len(data))] = dice.randrange(256)
    path.write_bytes(data)


def cut(path, dice):
    data = path.read_bytes()
    path.write_bytes(data[: dice.randrange(len(data) + 1)])


def garbage(path, dice):
    path.write_bytes(dice.choice((b"", b"\xff\xfe\x00", dice.randbytes(300), b"[" * 100_000)))


def delete(path, dice):
    path.unlink()


def swap(path, dice):
    others = [other for other in sorted(path.parents[1].rglob("*")) if other.is_file()]
    shutil.copy(dice.choice(others), path.with_name("swapped"))
    path.with_name("swapped").replace(path)


def places(value, where=()):
    """All places of a nested value."""
    yield where
    parts = enumerate(value) if isinstance(value, list) else ()
    for key, part in value.items() if isinstance(value, dict) else parts:
        yield from places(part, (*where, key))


def retype(value, dice):
    """Put something strange at one place of a nested value."""
    where = dice.choice(list(places(value)))
    if not where:
        return dice.choice(STRANGE)
    holder = value
    for key in where[:-1]:
        holder = holder[key]
    holder[where[-1]] = dice.choice(STRANGE)
    return value


def retype_text(path, dice):
    if path.suffix == ".json":
        path.write_text(json.dumps(retype(json.loads(path.read_text()), dice)))
    elif path.suffix == ".yaml":
        path.write_text(yaml.safe_dump(retype(yaml.safe_load(path.read_text()), dice)))
    else:
        lines = [line.split(",") for line in path.read_text().splitlines()]
        line = dice.choice(lines)
        line[dice.randrange(len(line))] = str(dice.choice(STRANGE))
        path.write_text("\n".join(",".join(line) for line in lines))


def reshape(array, dice):
    return dice.choice(
        [
            lambda: array.astype("S"),
            lambda: array.astype("f2"),
            lambda: array.astype("c8"),
            lambda: array[None],
            lambda: array[:0],
            lambda: array[..., :1],
            lambda: array.reshape(-1),
            lambda: array * np.nan,
            lambda: -1 * array.astype("f4"),
            lambda: np.zeros((), array.dtype),
        ]
    )()


def retype_hdf5(path, dice):
    with h5py.File(path, "a") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dice.random() < 0.3:
            name = dice.choice(sorted(file.attrs))
            text = str(file.attrs[name])
            changes = ["", "{}", "[]", text[:9], np.arange(3), 1.5, retyped_json(text, dice)]
            file.attrs[name] = dice.choice(changes)
            return
        name = dice.choice(sorted(file))
        array = file[name][()]
        del file[name]
        kind = dice.randrange(12)
        if kind == 0:
            file[name] = h5py.SoftLink("/slices")
        elif kind == 1:
            file[name] = h5py.ExternalLink("/etc/passwd", "/")
        elif kind == 2:
            file.create_dataset(name, shape=(10**6, 10**4, 10**3), chunks=(1, 100, 100))
        elif kind > 3:
            file[name] = reshape(array, dice)


def retyped_json(text, dice):
    try:
        return json.dumps(retype(json.loads(text), dice)).replace("\\u0000", "")
    except ValueError:
        return "x"


def retype_npz(path, dice):
    with np.load(path) as file:
        arrays = dict(file)
    name = dice.choice(sorted(arrays))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arrays[name] = reshape(arrays[name], dice)
    np.savez(path, **arrays)


def damage(folder, dice):
    """Damage one file of a folder of runs; return what was done."""
    files = [
        path for path in sorted(folder.rglob("*")) if path.is_file() and "report" not in path.parts
    ]
    path = dice.choice(files)
    retypes = {".h5": retype_hdf5, ".npz": retype_npz, ".png": garbage}
    retyped = retypes.get(path.suffix, retype_text)
    how = dice.choice((flip, cut, garbage, delete, swap, retyped, retyped, retyped))
    how(path, dice)
    return f"{how.__name__} {path.relative_to(folder)}"


def ends(verb, folder):
    """Run a verb: None when it ends well, one line when it refuses, else what went wrong."""
    try:
        return None if verb(folder) == 0 else "ended with a failure"
    except InputError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}\n{''.join(traceback.format_exception(error)[-2:])}"


@pytest.mark.timeout(60 + 20 * N_FOLDERS)
def test_damaged_folders_end_well_or_in_one_line(whole_run, verbs, tmp_path, capsys):
    refused, wrong = 0, []
    for seed in range(N_FOLDERS):
        dice = random.Random(seed)
        folder = tmp_path / str(seed)
        shutil.copytree(whole_run / "runs", folder)
        done = damage(folder, dice)
        said = [ends(verbs.report, folder)] if seed % 2 else []
        said = [line for line in [*said, ends(verbs.evaluate, folder)] if line is not None]
        refused += bool(said)
        wrong += [f"seed {seed}: {done}: {line}" for line in said if "\n" in line]
        shutil.rmtree(folder)
    with capsys.disabled():
        print(f"{N_FOLDERS} damaged folders: {refused} refused in one line, {len(wrong)} not")
    assert not wrong, "\n".join(wrong)
    assert 0 < refused < N_FOLDERS  # the damage is felt, and not by all
