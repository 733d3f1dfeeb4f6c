"""The model bundle: a folder NAME.x2ct/ with model.json and three ONNX graphs, opened, checked and written here.

Opening a bundle checks all of it and executes nothing: the JSON field by field (`x2ct.manifest` has the schema), size
and SHA-256 of every file, each graph's inputs and outputs against the declared ones, and that no graph refers to
anything outside its file (`x2ct.onnxfile`: neither onnx nor a runtime is needed). Files that model.json does not list
are never opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from x2ct.errors import InputError
from x2ct.fields import Json, parse
from x2ct.grid import Grid
from x2ct.manifest import (
    MANIFEST,
    MAX_FILE_BYTES,
    SCHEMA,
    Diffusion,
    File,
    Manifest,
    Network,
    Networks,
    Patch,
    XRaySpec,
    read_files,
    read_manifest,
)
from x2ct.onnxfile import Tensor, read_facts

__all__ = [
    "DEFAULT",
    "OPSET",
    "SUFFIX",
    "Bundle",
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

SUFFIX = ".x2ct"
DEFAULT = "chest"
"""The name of the bundled model that is used when none is named."""

OPSET = 18
"""The opset of the canonical graphs: what OpenVINO, ONNX Runtime and TensorRT 10 all read."""

_MODELS = Path(__file__).parent / "models"
_MANIFEST_BYTES = 4 << 20


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
        folder = _find(model)
        try:
            return _load(folder)
        except OSError as error:
            raise InputError.of(
                folder, "bundle", found=error.strerror or error, expected="files that can be read"
            ) from None

    @classmethod
    def write(cls, target: str | os.PathLike[str], manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
        """Write a bundle: built beside the target, checked by opening it, then renamed into place.

        A bundle that is already there is replaced whole, or left as it is when anything fails. (Replacing takes two
        renames, since rename does not replace a folder that holds files; a process killed between them leaves the old
        bundle beside, as .NAME-*.old.)

        Args:
            target: the folder, by custom NAME.x2ct.
            manifest: everything but the checksums.
            files: content of each graph's file, by name.

        Raises:
            InputError: the target can't be written, or is something else than a bundle; or the manifest contradicts the
                files.
        """
        target = Path(target)
        check_target(target)
        listed = {name: File(hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()}
        content: dict[str, Json] = manifest.to_json() | {
            "files": {name: {"sha256": file.sha256, "bytes": file.bytes} for name, file in listed.items()}
        }
        text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        beside = target.absolute().parent / f".{target.name}-{secrets.token_hex(4)}.new"
        try:
            beside.mkdir()
            for name, data in {**files, MANIFEST: text.encode()}.items():
                _write_file(beside / name, data)
            bundle = _load(beside)
            _put_in_place(beside, target)
        except OSError as error:
            raise _unwritable(target, error) from None
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return cls(**{**vars(bundle), "path": target})

    def file_of(self, network: Network) -> Path:
        """The path of a network's graph."""
        return self.path / network.file

    @property
    def size_bytes(self) -> int:
        """Size of all listed files."""
        return sum(file.bytes for file in self.files.values())

    def summary(self) -> dict[str, Json]:
        """What `x2ct info` shows, as plain data: short, in reading order, complete enough to tell two bundles apart."""
        low, high = self.intensity.window_hu
        return {
            "name": self.name,
            "path": str(self.path),
            "checksum": self.checksum,
            "x2ct": self.version,
            "created": self.created,
            "bytes": self.size_bytes,
            "grid": {
                "shape": list(self.grid.shape),
                "spacing_mm": list(self.grid.spacing_mm),
                "size_mm": list(self.grid.size_mm),
            },
            "window_hu": [low, high],
            "xray": {"shape": list(self.xray.shape), "spacing_mm": list(self.xray.spacing_mm)},
            "views": [f"{view.name} ({view.kind})" for view in self.geometry.views],
            "sampling": {
                "solver": self.diffusion.solver,
                "schedule": self.diffusion.schedule,
                "steps": self.diffusion.steps,
                "sigma": [self.diffusion.sigma_max, self.diffusion.sigma_min],
                "tuned_for_steps": ", ".join(map(str, sorted(self.diffusion.schedules))) or "none",
            },
            "patch": {"sizes": [list(size) for size in self.patch.sizes], "stride": self.patch.stride},
            "receptive_radius": self.networks.denoiser.receptive_radius,
            "networks": {
                name: {
                    "bytes": self.files[network.file].bytes,
                    "inputs": [str(tensor) for tensor in network.inputs],
                    "outputs": [str(tensor) for tensor in network.outputs],
                }
                for name, network in self.networks.items()
            },
            "parity": dict(self.parity),
            "provenance": dict(self.provenance),
        }


def bundled() -> tuple[str, ...]:
    """Names of the models that come with the package."""
    return tuple(sorted(path.name.removesuffix(SUFFIX) for path in _MODELS.glob(f"*{SUFFIX}")))


def _find(model: str | os.PathLike[str]) -> Path:
    folder = Path(model)
    if isinstance(model, str) and Path(model).name == model and not (model.endswith(SUFFIX) and folder.exists()):
        packaged = _MODELS / (model.removesuffix(SUFFIX) + SUFFIX)
        if packaged.is_dir():
            return packaged
        names = ", ".join(bundled()) or "none"
        raise InputError.of(
            model, "model", found="no such bundle", expected=f"a folder NAME{SUFFIX} or a bundled model ({names})"
        )
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing there"
        raise InputError.of(folder, "bundle", found=found, expected=f"a folder NAME{SUFFIX} with {MANIFEST}")
    return folder


def _read_file(path: Path, size: int | None, limit: int) -> bytes:
    """A regular file's bytes; `size` is what it must have, None where any size up to `limit` will do."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError.of(path, "file", found="nothing there", expected="a file of the bundle") from None
    if not stat.S_ISREG(found.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a regular file"
        raise InputError.of(path, "file", found=what, expected="a regular file inside the bundle")
    expected = f"at most {limit} bytes" if size is None else f"{size} bytes"
    if found.st_size > limit or size not in (None, found.st_size):
        raise InputError.of(
            path, "size", found=f"{found.st_size} bytes", expected=expected, hint="copy the bundle again"
        )
    with path.open("rb") as stream:
        data = stream.read(found.st_size + 1)
    if len(data) != found.st_size:
        raise InputError.of(path, "size", found="a file that changes", expected=expected)
    return data


def _load(folder: Path) -> Bundle:
    data = _read_file(folder / MANIFEST, None, _MANIFEST_BYTES)
    fields = parse(folder / MANIFEST, data)
    schema = fields.raw("schema", str(SCHEMA))
    if isinstance(schema, bool) or schema != SCHEMA:
        fields.fail(
            "schema", expected=SCHEMA, hint="written by another version of x2ct; update x2ct or export the model again"
        )
    manifest, files = read_manifest(fields), read_files(fields)
    fields.close()
    for name, network in manifest.networks.items():
        if network.file not in files:
            fields.fail(
                f"networks.{name}.file", found=network.file, expected=f"a file listed in files ({', '.join(files)})"
            )
    for name, file in files.items():
        path = folder / name
        content = _read_file(path, file.bytes, MAX_FILE_BYTES)
        digest = hashlib.sha256(content).hexdigest()
        if digest != file.sha256:
            raise InputError.of(
                path,
                "SHA-256",
                found=f"{digest[:12]}...",
                expected=f"{file.sha256[:12]}...",
                hint="the file is damaged; copy it again",
            )
        for network in (network for _, network in manifest.networks.items() if network.file == name):
            _check_graph(path, content, network)
    return Bundle(**vars(manifest), path=folder, checksum=hashlib.sha256(data).hexdigest(), files=files)


def _check_graph(path: Path, data: bytes, network: Network) -> None:
    facts = read_facts(path, data)
    if facts.opset != OPSET:
        raise InputError.of(path, "opset", found=facts.opset, expected=OPSET)
    for field, graph, declared in (
        ("inputs", facts.inputs, network.inputs),
        ("outputs", facts.outputs, network.outputs),
    ):
        if graph != declared:
            told = tuple("; ".join(str(tensor) for tensor in tensors) for tensors in (graph, declared))
            raise InputError.of(path, field, found=told[0], expected=f"{told[1]}, as {MANIFEST} says")


def check_target(target: Path) -> None:
    """Say before a long run that a bundle can't be written: a target is absent, an empty folder, or a bundle alone.

    Raises:
        InputError: it is something else, or has no folder to be in.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        what = "a symbolic link" if target.is_symlink() else "a file"
        raise InputError.of(target, "output", found=what, expected="a new folder, or a bundle to replace")
    if not target.name or not target.absolute().parent.is_dir():
        raise InputError.of(target, "output", found="no folder to put it in", expected=f"a path PARENT/NAME{SUFFIX}")
    if not target.is_dir():
        return
    try:
        present = {entry.name for entry in target.iterdir()}
    except OSError as error:
        raise _unwritable(target, error) from None
    if not present:
        return
    try:
        known = {
            MANIFEST,
            *parse(target / MANIFEST, _read_file(target / MANIFEST, None, _MANIFEST_BYTES)).section("files").keys(),
        }
    except InputError:
        known = set()
    if MANIFEST not in present or present - known:
        other = sorted(present - known)[0] if present - known else "no model.json"
        raise InputError.of(
            target, "output", found=f"a folder that holds {other}", expected="a new folder, or a bundle to replace"
        )


def _unwritable(target: Path, error: OSError) -> InputError:
    return InputError.of(target, "output", found=error.strerror or error, expected="a folder that can be written")


def _write_file(path: Path, data: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _put_in_place(beside: Path, target: Path) -> None:
    """Rename the finished folder over the target; put the old one back if that fails."""
    if not target.exists():
        beside.rename(target)
        return
    old = beside.with_suffix(".old")
    target.rename(old)
    try:
        beside.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
