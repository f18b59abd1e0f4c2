"""The counts and pairs that `experiments/main_table` prints."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "experiments" / "main_table" / "order.py"


@pytest.fixture
def order():
    spec = importlib.util.spec_from_file_location("order", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(path, values):
    columns = ["psnr", "ssim", "nmse", "haarpsi", "tenengrad", "data_consistency"]
    lines = [",".join(["file", "slice", "method", "anatomy", "mask", *columns])]
    for method, numbers in values.items():
        for index, number in enumerate(numbers):
            cells = [str(number)] * len(columns)
            lines.append(",".join([f"{index}.h5", "0", method, "brain", "gaussian R=4", *cells]))
    path.write_text("\n".join(lines) + "\n")


def test_order_counts_slices_below_and_pairs_additions(order, tmp_path, monkeypatch, capsys):
    plain = [1, 2, 3, 4, 5, 6, 7]
    values = {
        "zero_filled": [1.5] * 7,
        "cg_sense": [2.5] * 7,
        "unrolled lora": plain,
        "unrolled lora + image_same": [v + 0.5 for v in plain],
    }
    write(tmp_path / "metrics.csv", values)
    monkeypatch.setattr("sys.argv", ["order.py", str(tmp_path / "metrics.csv")])
    order.main()
    lines = capsys.readouterr().out.splitlines()
    (counts,) = [line.split() for line in lines if line.startswith("  unrolled lora  ")]
    assert counts[2:] == ["1,", "1", "of", "7", "2,", "2", "of", "7"]
    assert "  unrolled lora + image_same against unrolled lora, n = 7" in lines
    psnr = next(line for line in lines if line.strip().startswith("psnr"))
    assert "+0.5000" in psnr
    assert "p = 0.0156" in psnr  # 2 / 2**7: all seven differences of one sign
