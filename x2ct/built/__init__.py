"""What a machine builds from a bundle for itself, and how it is found again.

`artefacts` is the cache, with what it is made of beside it: `recipe` (what an artefact depends on), `sidecar` (what
says so), `seal` (who built it) and `cachefolder` (locks, leftovers). `plans` and `torchartefacts` say which TensorRT
plan or which file for PyTorch does for a bundle, a grid and this machine. Building is `x2ct.export`'s. A module enters
if it describes one kind of artefact; it runs none, and imports no runtime.
"""
