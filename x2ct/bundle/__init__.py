"""The model bundle: a folder NAME.x2ct/ with model.json and three ONNX graphs, opened, checked and written here.

Opening a bundle checks all of it and executes nothing: the JSON field by field, size and SHA-256 of every file, each
graph's inputs and outputs against the declared ones, and that no graph refers to anything outside its file
(`x2ct.onnxfile`: neither onnx nor a runtime is needed). Files that model.json does not list are never opened.

`manifest` is model.json's schema as types, `reading` reads it field by field, `contract` says how the three graphs fit
together, `folder` finds, reads and replaces the files, and `opened` has the `Bundle`. A module enters if it is about a
bundle's files; what is done with a model is above this room.
"""

from x2ct.bundle.contract import OPSET
from x2ct.bundle.folder import DEFAULT, SUFFIX, bundled, check_target
from x2ct.bundle.manifest import (
    MANIFEST,
    SCHEMA,
    Description,
    Diffusion,
    File,
    Manifest,
    Network,
    Networks,
    Patch,
    XRaySpec,
)
from x2ct.bundle.opened import Bundle
from x2ct.grid import Grid
from x2ct.onnxfile import Tensor

__all__ = [
    "DEFAULT",
    "MANIFEST",
    "OPSET",
    "SCHEMA",
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
