"""An opened bundle, and bundles that are written: new ones, or one with what was found for it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec
import numpy as np

from x2ct import _core
from x2ct.bundle.folder import DEFAULT, bundled, check_target, find
from x2ct.bundle.manifest import MANIFEST, File, Manifest, Network
from x2ct.files.atomic import check_writable, write_beside
from x2ct.files.text import Json
from x2ct.io.report import write_json

AnyPath: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True)
class Bundle(Manifest):
    """An opened bundle: a manifest whose files have been checked.

    The checksum is the SHA-256 of model.json, which holds those of the other files: it identifies the model.
    """

    path: Path
    checksum: str
    files: Mapping[str, File]

    @classmethod
    def load(cls, model: AnyPath = DEFAULT) -> Bundle:
        """Open a bundle, by its folder or a bundled model's name ("chest"), and check the whole of it.

        A text without separators is a folder only if it ends in .x2ct. Raises InputError: not a bundle, of an unknown
        schema version, damaged, or inconsistent; the text names file and field.
        """
        folder = find(model)
        text, checksum = _core.open_bundle(os.fsencode(folder))
        content = msgspec.json.decode(text)
        fields = {**content, "version": content["x2ct"], "path": folder, "checksum": checksum}

        def unknown_to_msgspec(kind: Any, value: Any) -> Any:
            return value if kind is Path else np.asarray(value)

        return msgspec.convert(fields, cls, str_keys=True, dec_hook=unknown_to_msgspec)

    @classmethod
    def write(cls, target: AnyPath, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
        """Write a bundle of each graph's file by name: built beside the target, opened to check it, then renamed.

        A bundle that is already there is replaced whole, or left as it is when anything fails. The target is a folder,
        by custom NAME.x2ct. Raises InputError: the target's folder can't be written, or it is something else than a
        bundle; or the manifest contradicts the files; X2CTError: the write failed on the way (disk full).
        """
        target = Path(target)
        check_target(target)
        listed = {name: {"sha256": hashlib.sha256(one).hexdigest(), "bytes": len(one)} for name, one in files.items()}
        content = {**manifest.to_json(), "files": listed}
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

    def save_as(self, target: AnyPath, **changes: Any) -> Bundle:
        """Write a copy with other values of some fields; see `write`, which raises the errors."""
        files = {name: (self.path / name).read_bytes() for name in self.files}
        return Bundle.write(target, replace(self, **changes), files)

    @property
    def argument(self) -> str:
        """The bundle as an argument of the command line: a bundled model's name, or a path."""
        return self.name if self.name in bundled() else str(self.path)

    @property
    def size_bytes(self) -> int:
        """Size of all listed files."""
        return sum(file.bytes for file in self.files.values())

    def summary(self) -> dict[str, Json]:
        """Return the summary of `x2ct info` as plain data, in reading order; it differs where two bundles do."""
        plain: dict[str, Any] = self.to_json()
        ranges, tuned = self.networks.denoiser.int8, sorted(self.diffusion.schedules)
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
                "tuned_for_steps": ", ".join(map(str, tuned)) or "none",
                "deviation_scale": plain["diffusion"].get("deviation_scale", {}),
                "mirror": self.diffusion.mirror,
            },
            "patch": {name: plain["patch"][name] for name in ("sizes", "stride")},
            "receptive_radius": self.networks.denoiser.receptive_radius,
            "int8": f"{len(ranges)} convolutions" if ranges else "none",
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


class Finding(Protocol):
    """Numbers found for a model: fields of its bundle that change, and plain data for a report."""

    def changes(self, bundle: Bundle) -> Mapping[str, Any]:
        """Return the fields by name."""

    def to_json(self) -> Mapping[str, Any]:
        """Return the report."""


F = TypeVar("F", bound=Finding)


def improve(model: AnyPath, output: AnyPath, find_for: Callable[[Bundle], F], report: AnyPath | None = None) -> F:
    """Open a bundle, find something for it, and write the bundle with it, and a report (.json) if asked for.

    Errors of `find_for` pass through. `output` may be the bundle itself, which is replaced whole. Raises InputError:
    the bundle can't be opened, or an output can't be written, which is checked first; X2CTError: the write failed.
    """
    check_target(Path(output))
    if report is not None:
        check_writable(report, (".json",))
    bundle = Bundle.load(model)
    finding = find_for(bundle)
    bundle.save_as(output, **finding.changes(bundle))
    if report is not None:
        write_json(finding.to_json(), report)
    return finding
