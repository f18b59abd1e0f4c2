"""Run the notebooks of this folder and keep their outputs, made small: `make notebook`."""

from __future__ import annotations

import base64
import io
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).parent
CACHE = "~/.cache/mrisem"  # the default, which the outputs name whatever the cache was


def run(path: Path) -> None:
    """Execute a notebook in an empty folder, with a cache of its own, and write it back."""
    notebook = nbformat.read(path, 4)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MRISEM_CACHE"] = cache = str(Path(folder) / "cache")
        place = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=900, kernel_name="python3", resources=place).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        kept = [o for o in cell.get("outputs", []) if o.get("name") != "stderr"]  # bars
        if "outputs" in cell:
            cell.outputs = [_small(output, cache) for output in kept]
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    nbformat.write(notebook, path)


def _small(output: Any, cache: str) -> Any:
    """Return an output with pictures of 128 colours, without the place of the cache."""
    if "text" in output:
        output.text = output.text.replace(cache, CACHE)
    data = output.get("data", {})
    if "text/html" in data:
        data["text/html"] = re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.DOTALL)
    if "image/png" in data:
        picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
        out = io.BytesIO()
        picture.quantize(128, dither=Image.Dither.NONE).save(out, format="png", optimize=True)
        data["image/png"] = base64.b64encode(out.getvalue()).decode("ascii")
    return output


if __name__ == "__main__":
    for file in sorted(HERE.glob("*.ipynb")):
        run(file)
