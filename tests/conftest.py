"""What all tests share: few threads, so that what runs beside the tests keeps its share of a small machine; and small
inputs that take a while to make, made once. Nobody may write into them.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Before NumPy, PyTorch or a BLAS is loaded; a test that is about threads sets its own number.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "2")

if TYPE_CHECKING:
    from x2ct.bundle import Bundle
    from x2ct.export import ExportReport
    from x2ct.export.graphs import Graph


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """A shell that runs tests in the background has SIGINT ignored, and a process that it starts inherits that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training run measures the machine's matrix rate, which takes longer than what a test trains."""
    if (monitor := sys.modules.get("x2ct.training.monitor")) is not None:
        monkeypatch.setattr(monitor, "SIDE", 128)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of `tests.tiny_bundle`."""
    from tests import tiny_bundle

    return tiny_bundle.write(tmp_path_factory.mktemp("bundle") / "tiny.x2ct")


@pytest.fixture(scope="session")
def tiny_path(tiny: Bundle) -> Path:
    """Its folder."""
    return tiny.path


@pytest.fixture(scope="session")
def denoiser_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The network of `tests.tiny_network`."""
    from tests import tiny_network

    return tiny_network.write_denoiser(tmp_path_factory.mktemp("onnx") / "denoiser.onnx")


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three patients of `tests.tiny_run`."""
    from tests import tiny_run

    return tiny_run.write_shards(tmp_path_factory.mktemp("shards") / "phantoms")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportReport, tuple[Graph, ...]]:
    """Export the network of `tests.tiny_model`, once, for it takes seconds; return the report and the traced graphs."""
    import torch

    from tests.tiny_model import SPEC, random_model
    from x2ct.export import export_model, run

    graphs, trace, threads = list["Graph"](), run.trace_networks, torch.get_num_threads()

    def traced(*given: Any) -> tuple[Graph, ...]:
        graphs.extend(trace(*given))
        return tuple(graphs)

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "trace_networks", traced)
        report = export_model(random_model(), SPEC, tmp_path_factory.mktemp("export") / "tiny.x2ct")
    torch.set_num_threads(threads)
    return report, tuple(graphs)


@pytest.fixture(scope="session")
def shaped_shards(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the training patients' shapes, whose registration takes seconds."""
    from x2ct.data.shapes import write_shapes
    from x2ct.data.shards import ShardSet

    folder = shutil.copytree(shards, tmp_path_factory.mktemp("shards") / "shaped")
    write_shapes(folder, ShardSet.open(folder).select("train"))
    return folder
