"""Export: a trained run becomes a bundle, and proves that it computes the same before anything is written.

`run.py` is the way through: load the run, fold its weights, trace three ONNX graphs (`graphs.py`), tidy them
(`tidy.py`), store large weights as float16 (`precision.py`), run each graph in ONNX Runtime and in OpenVINO beside
PyTorch (`parity.py`), and only then write the bundle. `inverse.py` is the way back, from a bundle to a PyTorch model.
`formats.py` goes on from a bundle: torch's engines (`torchfiles.py`), TensorRT's plans (`plans.py`), and a proof of
each file in each runtime (`proof.py`). PyTorch, onnx and the runtimes are imported where they are used.
"""

from x2ct.export.inverse import StartingPoint, load_bundle_model, starting_point
from x2ct.export.run import ExportReport, export_model, export_run

__all__ = [
    "ExportReport",
    "StartingPoint",
    "export_model",
    "export_run",
    "load_bundle_model",
    "starting_point",
]
