"""The model bundle: a folder NAME.x2ct/ with model.json and three ONNX graphs (docs/bundle.md).

The core (csrc/core/bundle.cpp) opens a bundle, checks all of it and executes nothing. `manifest` is model.json's schema
as types, `folder` finds a bundle, and `opened` has the `Bundle`, which is filled from what the core read and can be
written, and `improve`, which writes one with what was found for it.
"""

from x2ct._core import OPSET
from x2ct.bundle.folder import DEFAULT, SUFFIX, bundled, check_target
from x2ct.bundle.manifest import MANIFEST, Description, Diffusion, Manifest, Network, Networks, Patch, Tensor, XRaySpec
from x2ct.bundle.opened import Bundle, improve
from x2ct.geometry.grid import Grid

__all__ = [
    "DEFAULT",
    "MANIFEST",
    "OPSET",
    "SUFFIX",
    "Bundle",
    "Description",
    "Diffusion",
    "Grid",
    "Manifest",
    "Network",
    "Networks",
    "Patch",
    "Tensor",
    "XRaySpec",
    "bundled",
    "check_target",
    "improve",
]
