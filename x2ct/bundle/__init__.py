"""The model bundle: a folder NAME.x2ct/ with model.json and three ONNX graphs, opened, checked and written here.

The core (csrc/core/bundle.cpp) opens a bundle. It checks all of it and executes nothing: the JSON field by field, size
and SHA-256 of every file, each graph's inputs and outputs against the declared ones, and that no graph refers to
anything outside its file. Files that model.json does not list are never opened.

`manifest` is model.json's schema as types, `folder` finds a bundle, and `opened` has the `Bundle`, which is filled from
what the core read and can be written. A module enters if it is about a bundle's files; what is done with a model is
above this room.
"""

from x2ct._core import OPSET
from x2ct.bundle.folder import DEFAULT, SUFFIX, bundled, check_target
from x2ct.bundle.manifest import (
    MANIFEST,
    Description,
    Diffusion,
    File,
    Manifest,
    Network,
    Networks,
    Patch,
    Tensor,
    XRaySpec,
)
from x2ct.bundle.opened import Bundle
from x2ct.geometry.grid import Grid

__all__ = [
    "DEFAULT",
    "MANIFEST",
    "OPSET",
    "SUFFIX",
    "Bundle",
    "Description",
    "Diffusion",
    "File",
    "Grid",
    "Manifest",
    "Network",
    "Networks",
    "Patch",
    "Tensor",
    "XRaySpec",
    "bundled",
    "check_target",
]
