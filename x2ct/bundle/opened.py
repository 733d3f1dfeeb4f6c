"""An opened bundle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from x2ct import _core
from x2ct.bundle.folder import DEFAULT, bundled, check_target, find
from x2ct.bundle.intensity import Intensity
from x2ct.bundle.manifest import MANIFEST, Diffusion, File, Manifest, Network, Networks, Patch, XRaySpec
from x2ct.files.atomic import write_beside
from x2ct.files.text import Json
from x2ct.geometry import Geometry
from x2ct.geometry.grid import Grid


@dataclass(frozen=True)
class Bundle(Manifest):
    """An opened bundle: a manifest whose files have been checked.

    Attributes:
        path: the folder.
        checksum: SHA-256 of model.json, which holds those of the other files: it identifies the model.
        files: size and SHA-256 of each file.
    """

    path: Path
    checksum: str
    files: Mapping[str, File]

    @classmethod
    def load(cls, model: str | os.PathLike[str] = DEFAULT) -> Bundle:
        """Open a bundle and check the whole of it.

        Args:
            model: a folder, or the name of a bundled model ("chest"). A text without separators is a folder only if it
                ends in .x2ct.

        Raises:
            InputError: not a bundle, of an unknown schema version, damaged, or inconsistent; the text names file and
                field.
        """
        folder = find(model)
        text, checksum = _core.open_bundle(os.fsencode(folder))
        content = msgspec.json.decode(text)
        kinds: dict[str, Any] = {
            "grid": Grid,
            "intensity": Intensity,
            "xray": XRaySpec,
            "geometry": Geometry,
            "diffusion": Diffusion,
            "patch": Patch,
            "networks": Networks,
            "files": dict[str, File],
        }
        for name, kind in kinds.items():
            content[name] = msgspec.convert(
                content[name], kind, str_keys=True, dec_hook=lambda _, value: np.asarray(value)
            )
        del content["schema"]
        return cls(version=content.pop("x2ct"), path=folder, checksum=checksum, **content)

    @classmethod
    def write(cls, target: str | os.PathLike[str], manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
        """Write a bundle: built beside the target, checked by opening it, then renamed into place.

        A bundle that is already there is replaced whole, or left as it is when anything fails.

        Args:
            target: the folder, by custom NAME.x2ct.
            manifest: everything but the checksums.
            files: content of each graph's file, by name.

        Raises:
            InputError: the target's folder can't be written, or it is something else than a bundle; or the manifest
                contradicts the files.
            X2CTError: the write failed on the way (disk full).
        """
        target = Path(target)
        check_target(target)
        listed: dict[str, Json] = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()
        }
        content = manifest.to_json() | {"files": listed}
        text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"

        def write(part: Path) -> None:
            part.mkdir()
            for name, data in {**files, MANIFEST: text.encode()}.items():
                (part / name).write_bytes(data)
            cls.load(part)

        write_beside(target, write, replace=True)
        return cls.load(target)

    def file_of(self, network: Network) -> Path:
        """The path of a network's graph."""
        return self.path / network.file

    def contents(self) -> dict[str, bytes]:
        """Each listed file's bytes by name, as `write` takes them."""
        return {name: (self.path / name).read_bytes() for name in self.files}

    @property
    def argument(self) -> str:
        """How the command line names it: a model that comes with the package by its name, another by its path."""
        return self.name if self.name in bundled() else str(self.path)

    @property
    def size_bytes(self) -> int:
        """Size of all listed files."""
        return sum(file.bytes for file in self.files.values())

    def summary(self) -> dict[str, Json]:
        """What `x2ct info` shows, as plain data: short, in reading order, complete enough to tell two bundles apart."""
        plain: dict[str, Any] = self.to_json()
        return {
            "name": self.name,
            "path": str(self.path),
            "checksum": self.checksum,
            "x2ct": self.version,
            "created": self.created,
            "bytes": self.size_bytes,
            "grid": plain["grid"] | {"size_mm": list(self.grid.size_mm)},
            "window_hu": list(self.intensity.window_hu),
            "xray": {name: plain["xray"][name] for name in ("shape", "spacing_mm")},
            "views": [f"{view.name} ({view.kind})" for view in self.geometry.views],
            "sampling": {
                **{name: plain["diffusion"][name] for name in ("solver", "schedule", "steps")},
                "sigma": [self.diffusion.sigma_max, self.diffusion.sigma_min],
                "tuned_for_steps": ", ".join(map(str, sorted(self.diffusion.schedules))) or "none",
                "deviation_scale": plain["diffusion"].get("deviation_scale", {}),
            },
            "patch": {name: plain["patch"][name] for name in ("sizes", "stride")},
            "receptive_radius": self.networks.denoiser.receptive_radius,
            "int8": f"{len(self.networks.denoiser.int8)} convolutions" if self.networks.denoiser.int8 else "none",
            "networks": {
                name: {
                    "bytes": self.files[network.file].bytes,
                    "inputs": [str(tensor) for tensor in network.inputs],
                    "outputs": [str(tensor) for tensor in network.outputs],
                }
                for name, network in self.networks.items()
            },
            **{name: plain[name] for name in ("parity", "provenance")},
        }
