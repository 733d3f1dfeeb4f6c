"""A bundle as a Triton model repository and as a MONAI bundle gives the CT that x2ct gives.

Neither server is here. Triton's client has its ModelConfig, which parses what we write; ONNX Runtime stands for its
onnxruntime backend; the loop's `triton_python_backend_utils` is a stand-in below. MONAI's checks are MONAI's own.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import x2ct
from tests.commandline import run
from x2ct.bundle import Bundle
from x2ct.export.parity import xrays
from x2ct.export.proof import VOLUME_BOUND_HU
from x2ct.io.ct.volume import Volume

onnxruntime = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

SEED = 3
NETWORKS = ("encoder", "lift", "denoiser")


@pytest.fixture(scope="module")
def pictures(tiny: Bundle) -> dict[str, npt.NDArray[np.float32]]:
    """Line integrals of both views."""
    names = [view.name for view in tiny.geometry.views]
    return dict(zip(names, xrays(tiny, np.random.default_rng(0))[0, :, 0], strict=True))


def sampled(bundle: Bundle, pictures: dict[str, npt.NDArray[np.float32]], **options: Any) -> Volume:
    """What x2ct itself gives, in another runtime than the exports'."""
    given: dict[str, Any] = {name: x2ct.XRay(picture, True) for name, picture in pictures.items()}
    sampler = x2ct.Sampler(bundle, backend="openvino", precision="f32", threads=1)
    return sampler.sample(**given, geometry=bundle.geometry, **options)


def assert_equal_ct(found: npt.NDArray[np.float32], wanted: Volume) -> None:
    assert found.shape == wanted.hu.shape
    assert np.ptp(wanted.hu) > 100 * VOLUME_BOUND_HU["f32"]
    assert np.mean(np.abs(found - wanted.hu)) <= VOLUME_BOUND_HU["f32"]


# ---------------------------------------------------------------------------------------------- Triton


@pytest.fixture(scope="module")
def repository(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command makes of the tiny bundle."""
    folder = tmp_path_factory.mktemp("triton") / "models"
    done = run("export", tiny_path, "--format", "triton", "-o", folder, "--quiet")
    assert done.exit_code == 0, done.output
    return folder


class Server:
    """Stands for a Triton server with the three networks, and for the module by which a Python model calls it."""

    def __init__(self, repository: Path) -> None:
        self.sessions = {
            path.parents[1].name: onnxruntime.InferenceSession(path) for path in repository.glob("*/1/model.onnx")
        }

    def module(self) -> ModuleType:
        server = self

        class Tensor:
            def __init__(self, name: str, values: npt.NDArray[Any]) -> None:
                self._name, self._values = name, values

            def as_numpy(self) -> npt.NDArray[Any]:
                return self._values

            def name(self) -> str:
                return self._name

        class TritonError:
            INTERNAL, INVALID_ARG, CANCELLED = "internal", "invalid", "cancelled"

            def __init__(self, text: str, code: str = "internal") -> None:
                self.text, self.code = text, code

            def message(self) -> str:
                return self.text

        class InferenceResponse:
            def __init__(self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None) -> None:
                self.tensors, self._error = {tensor.name(): tensor for tensor in output_tensors}, error

            def has_error(self) -> bool:
                return self._error is not None

            def error(self) -> TritonError | None:
                return self._error

        class InferenceRequest:
            def __init__(
                self, model_name: str, requested_output_names: list[str], inputs: list[Tensor], preferred_memory: str
            ) -> None:
                assert preferred_memory == "cpu 0"
                self.model, self.outputs, self.inputs = model_name, requested_output_names, inputs

            def exec(self) -> InferenceResponse:
                if self.model not in server.sessions:
                    return InferenceResponse(error=TritonError(f"unknown model '{self.model}'"))
                given = {tensor.name(): tensor.as_numpy() for tensor in self.inputs}
                found = server.sessions[self.model].run(self.outputs, given)
                return InferenceResponse([Tensor(name, value) for name, value in zip(self.outputs, found, strict=True)])

        module: Any = ModuleType("triton_python_backend_utils")
        module.Tensor, module.TritonError = Tensor, TritonError
        module.InferenceRequest, module.InferenceResponse = InferenceRequest, InferenceResponse
        module.TRITONSERVER_MEMORY_CPU, module.PreferredMemory = "cpu", lambda kind, device: f"{kind} {device}"
        module.get_input_tensor_by_name = lambda request, name: request.tensors.get(name)
        module.get_output_tensor_by_name = lambda response, name: response.tensors.get(name)
        return module


class Client:
    """Sends requests to the loop."""

    def __init__(self, server: Server, repository: Path, name: str, patch: pytest.MonkeyPatch) -> None:
        self.server, self.utils = server, server.module()
        patch.setitem(sys.modules, "triton_python_backend_utils", self.utils)
        spec = importlib.util.spec_from_file_location("model", repository / name / "1/model.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.model = module.TritonPythonModel()
        self.model.initialize({"model_name": name})

    def send(self, tensors: dict[str, npt.NDArray[Any]], cancelled: Callable[[], bool] = lambda: False) -> Any:
        made = {name: self.utils.Tensor(name, values) for name, values in tensors.items()}
        [response] = self.model.execute([SimpleNamespace(tensors=made, is_cancelled=cancelled)])
        return response


@pytest.fixture
def client(repository: Path, tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> Client:
    return Client(Server(repository), repository, tiny.name, monkeypatch)


def test_triton_configurations_are_the_graphs(repository: Path, tiny: Bundle) -> None:
    """Triton refuses a model whose configuration and graph differ in a name, a type or an extent."""
    configs = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    parsed = {
        path.parent.name: text_format.Parse(path.read_text(), configs.ModelConfig())
        for path in repository.glob("*/config.pbtxt")
    }
    assert parsed.keys() == {"tiny", *(f"tiny_{name}" for name in NETWORKS)}
    types = {"tensor(float)": configs.TYPE_FP32}
    for name in NETWORKS:
        config = parsed[f"tiny_{name}"]
        assert (config.name, config.backend, config.max_batch_size) == (f"tiny_{name}", "onnxruntime", 0)
        session = onnxruntime.InferenceSession(repository / f"tiny_{name}/1/model.onnx")
        for ports, declared in ((session.get_inputs(), config.input), (session.get_outputs(), config.output)):
            shapes = [[extent if isinstance(extent, int) else -1 for extent in port.shape] for port in ports]
            wanted = [(port.name, types[port.type], shape) for port, shape in zip(ports, shapes, strict=True)]
            assert [(port.name, port.data_type, list(port.dims)) for port in declared] == wanted
    loop = parsed["tiny"]
    assert (loop.backend, loop.instance_group[0].kind) == ("python", configs.ModelInstanceGroup.KIND_CPU)
    assert {port.name: (port.data_type, list(port.dims), port.optional) for port in loop.input} == {
        "ap": (configs.TYPE_FP32, [64, 64], True),
        "lateral": (configs.TYPE_FP32, [64, 64], True),
        "seed": (configs.TYPE_UINT64, [1], True),
        "steps": (configs.TYPE_INT32, [1], True),
    }
    assert [(port.name, list(port.dims)) for port in loop.output] == [("hu", list(tiny.grid.shape))]


@pytest.mark.parametrize("names", [("ap", "lateral"), ("ap",)])
def test_triton_gives_the_samplers_ct(
    client: Client, tiny: Bundle, pictures: dict[str, npt.NDArray[np.float32]], names: tuple[str, ...]
) -> None:
    seen = {name: pictures[name] for name in names}
    options = {"seed": np.array([SEED], np.uint64), "steps": np.array([4], np.int32)}
    response = client.send({**seen, **options})
    assert not response.has_error(), response.error().message()
    assert_equal_ct(response.tensors["hu"].as_numpy(), sampled(tiny, seen, seed=SEED, steps=4))


def test_triton_errors_are_one_response(client: Client, pictures: dict[str, npt.NDArray[np.float32]]) -> None:
    """What is wrong with a request is said in its response, and the next one is answered."""
    for tensors, text in (
        ({}, "X-rays: views: found none"),
        ({"ap": pictures["ap"][:32]}, "ap: size: found 64 x 32 pixels"),
    ):
        error = client.send(tensors).error()
        assert error.code == "invalid" and text in error.message()
    calls = iter([False, False, True])
    assert client.send(pictures, lambda: next(calls)).error().code == "cancelled"
    lift = client.server.sessions.pop("tiny_lift")
    error = client.send(pictures).error()
    assert (error.code, error.message()) == ("internal", "tiny_lift: unknown model 'tiny_lift'")
    client.server.sessions["tiny_lift"] = lift
    assert not client.send(pictures).has_error()


# ---------------------------------------------------------------------------------------------- MONAI

SCHEMA = {
    "type": "object",
    "required": [
        *("schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
        *("task", "description", "authors", "copyright", "network_data_format"),
    ],
    "properties": {"network_data_format": {"required": ["inputs", "outputs"]}},
}
"""What MONAI's schema of 2024-07-25 requires; the schema itself lies on the network."""


@pytest.fixture(scope="module")
def monai_bundle(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command makes of the tiny bundle."""
    folder = tmp_path_factory.mktemp("monai") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("X2CT_CACHE", str(folder.parent / "cache"))
        done = run("export", tiny_path, "--format", "monai", "-o", folder, "--quiet")
    assert done.exit_code == 0, done.output
    return folder


def test_monais_checks_pass(monai_bundle: Path, tmp_path: Path) -> None:
    scripts = pytest.importorskip("monai.bundle")
    pytest.importorskip("jsonschema")
    metadata, config = (str(monai_bundle / "configs" / name) for name in ("metadata.json", "inference.json"))
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    scripts.verify_metadata(meta_file=metadata, filepath=str(tmp_path / "schema.json"))
    root = {"bundle_root": str(monai_bundle)}
    scripts.verify_net_in_out("network_def", metadata, config, device="cpu", **root)
    network = json.loads((monai_bundle / "configs/metadata.json").read_text())["network_data_format"]
    assert network["inputs"]["image"]["channel_def"] == {"0": "ap", "1": "lateral"}
    with pytest.raises(ValueError, match="channel number"):
        wrong = {"_meta_#network_data_format#outputs#pred#num_channels": 2}
        scripts.verify_net_in_out("network_def", metadata, config, device="cpu", **root, **wrong)


@pytest.mark.parametrize("names", [("ap", "lateral"), ("lateral",)])
def test_monais_run_gives_the_samplers_ct(
    monai_bundle: Path,
    tiny: Bundle,
    pictures: dict[str, npt.NDArray[np.float32]],
    tmp_path: Path,
    names: tuple[str, ...],
) -> None:
    scripts = pytest.importorskip("monai.bundle")
    seen = {name: pictures[name] for name in names}
    files = {name: str(tmp_path / f"{name}.npy") for name in names}
    for name, file in files.items():
        np.save(file, seen[name])
    output = tmp_path / "ct.nii.gz"
    scripts.run(
        config_file=str(monai_bundle / "configs/inference.json"),
        bundle_root=str(monai_bundle),
        xrays=files,
        output=str(output),
        seed=SEED,
        steps=4,
    )
    made = Volume.load(output)
    assert_equal_ct(made.hu, sampled(tiny, seen, seed=SEED, steps=4))
    np.testing.assert_allclose(made.affine, tiny.grid.index_to_mm)


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("--format triton", "--output: option: found none, expected the folder to write for triton"),
        ("--format triton --format onnx -o new", "--format: name: found triton and onnx, expected triton alone"),
        ("--format triton --precision f16 -o new", "--precision: options: found triton alone"),
        ("--format monai --name x -o new", "found options of a run, expected a bundle alone, for --format monai"),
    ],
)
def test_wrong_use_costs_nothing(tiny_path: Path, options: str, text: str) -> None:
    done = run("export", tiny_path, *options.split())
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert text in done.stderr
    assert not Path("new").exists()
