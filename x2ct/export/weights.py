"""Large weights stored as float16, with a Cast to float32 behind each: half the size, and the graph computes in f32."""

from __future__ import annotations

import numpy as np
import onnx

from x2ct.errors import X2CTError

LEAST_ELEMENTS = 256
"""Smaller tensors (biases, the preconditioning's constants) stay in f32: they weigh nothing and may need the digits."""


def to_f16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large float32 initialisers are rounded to float16 and cast back at run time.

    Runtimes fold the casts when they compile, so they cost nothing per evaluation.

    Raises:
        X2CTError: a weight lies outside float16's range.
    """
    small = onnx.ModelProto()
    small.CopyFrom(model)
    casts = []
    for initializer in small.graph.initializer:
        if initializer.data_type != onnx.TensorProto.FLOAT or np.prod(initializer.dims) < LEAST_ELEMENTS:
            continue
        values = onnx.numpy_helper.to_array(initializer)
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float16)
        if not np.isfinite(rounded).all():
            raise X2CTError(f"{initializer.name}: a weight of {np.abs(values).max():g} does not fit float16")
        name = initializer.name
        initializer.CopyFrom(onnx.numpy_helper.from_array(rounded, f"{name}.f16"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.f16"], [name], f"{name}.cast", to=onnx.TensorProto.FLOAT))
    nodes = list(small.graph.node)
    del small.graph.node[:]
    small.graph.node.extend([*casts, *nodes])
    onnx.checker.check_model(small, full_check=True)
    return small
