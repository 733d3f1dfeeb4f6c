"""The quick start as a notebook: it runs from top to bottom as it is committed, and shows its pictures."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "quickstart.ipynb"


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_committed_without_outputs() -> None:
    """Outputs would be another machine's, and would make each diff unreadable."""
    cells = code_cells(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    assert len(cells) >= 5
    for cell in cells:
        assert cell["outputs"] == [] and cell["execution_count"] is None
        compile("".join(cell["source"]), str(NOTEBOOK), "exec")


@pytest.mark.notebook
def test_the_quick_start_runs_and_shows_its_pictures(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in code_cells(notebook) for output in cell["outputs"]]
    pngs = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pngs) == 2  # the preview, and truth, synthesis and difference
    for png in pngs:
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("L"))
        assert min(picture.shape) > 300 and picture.std() > 20
    text = "".join(output.get("text", "") for output in outputs)
    assert "128 x 128 x 128 voxels" in text and "mean of 4" in text
    assert not [output for output in outputs if output["output_type"] == "stream" and output["name"] == "stderr"]
    assert (tmp_path / "ct.nii.gz").is_file()
