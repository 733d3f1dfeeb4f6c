"""The sampling loop as a Python model of a Triton server; `x2ct export --format triton` copies this file as model.py.

It needs x2ct in the server's Python, and the networks, which it calls by requests to the server (Business Logic
Scripting), under the names that `x2ct.export.triton` gives them. The loop is the core's (`x2ct.engine.external`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from x2ct.bundle import Bundle
from x2ct.engine.external import Arrays, sample
from x2ct.errors import InputError, X2CTError
from x2ct.io.xray.radiograph import XRay

BUNDLE = "bundle.x2ct"  # the model's bundle, beside this file's copy


class _CancelledError(Exception):
    """The client has cancelled its request."""


class TritonPythonModel:
    """Line integrals in, a CT out; `config.pbtxt` has the tensors' names, types and shapes."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle, which is checked whole."""
        self._name = args["model_name"]
        self._bundle = Bundle.load(Path(__file__).parent / BUNDLE)
        networks = self._bundle.networks.items()
        self._outputs = {name: [tensor.name for tensor in network.outputs] for name, network in networks}

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return one response for each request; an error in one is that one's response."""
        return [self._response(request) for request in requests]

    def _response(self, request: Any) -> Any:
        try:
            return pb_utils.InferenceResponse([pb_utils.Tensor("hu", self._sample(request))])
        except InputError as error:
            failure = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
        except _CancelledError:
            failure = pb_utils.TritonError("cancelled by the client", pb_utils.TritonError.CANCELLED)
        except X2CTError as error:
            failure = pb_utils.TritonError(str(error), pb_utils.TritonError.INTERNAL)
        return pb_utils.InferenceResponse(error=failure)

    def _sample(self, request: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
        names = [view.name for view in self._bundle.geometry.views]
        tensors = {name: pb_utils.get_input_tensor_by_name(request, name) for name in (*names, "seed", "steps")}
        arrays = {name: tensor.as_numpy() for name, tensor in tensors.items() if tensor is not None}
        xrays = {name: XRay(arrays[name], calibrated=True, source=name) for name in names if name in arrays}
        seed, steps = (int(arrays[name][0]) if name in arrays else None for name in ("seed", "steps"))

        def evaluate(network: str, inputs: Arrays) -> Arrays:
            if request.is_cancelled():
                raise _CancelledError
            return self._evaluate(network, inputs)

        return sample(self._bundle, evaluate, xrays, seed=seed or 0, steps=steps)

    def _evaluate(self, network: str, inputs: Arrays) -> Arrays:
        outputs = self._outputs[network]
        response = pb_utils.InferenceRequest(
            model_name=f"{self._name}_{network}",
            requested_output_names=outputs,
            inputs=[pb_utils.Tensor(name, np.ascontiguousarray(value)) for name, value in inputs.items()],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        ).exec()
        if response.has_error():
            raise X2CTError(f"{self._name}_{network}: {response.error().message()}")
        return {name: pb_utils.get_output_tensor_by_name(response, name).as_numpy() for name in outputs}
