"""`x2ct export` from end to end: a run to a bundle, a bundle to torch's artefacts, each proven before it is written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from x2ct.artefacts import Artefact, Cache
from x2ct.bundle import SUFFIX, Bundle, bundled, check_target
from x2ct.errors import InputError
from x2ct.export import proof, torchfiles
from x2ct.export.proof import Proof
from x2ct.export.run import ExportReport, export_run
from x2ct.fields import Json
from x2ct.manifest import MANIFEST
from x2ct.torchartefacts import SUFFIXES, recipe

FORMATS = ("onnx", *sorted(SUFFIXES, reverse=True))
"""What can be made; "onnx" is the bundle itself."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """What was made.

    Attributes:
        bundle: the bundle, new or as it was given.
        parity: of a run's graphs, against the network that was trained; None where a bundle was given.
        proofs: the table of `export/proof.py`.
        artefacts: torch's, as they lie in the cache.
    """

    bundle: Bundle
    parity: ExportReport | None
    proofs: tuple[Proof, ...]
    artefacts: tuple[Artefact, ...]

    def to_json(self) -> dict[str, Json]:
        """The report as plain data."""
        return {
            **(self.parity.to_json() if self.parity else {}),
            "path": str(self.bundle.path),
            "checksum": self.bundle.checksum,
            "bytes": self.bundle.size_bytes,
            "proof": [row.to_json() for row in self.proofs],
            "artefacts": [one.to_json() for one in self.artefacts],
        }


def export(
    source: str,
    output: Path | None,
    formats: Sequence[str] = ("onnx",),
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    **how: Any,
) -> Exported:
    """Make what is asked for of a run or a bundle, prove it, and only then write it.

    Args:
        source: a folder that `x2ct train` wrote, or a bundle's folder or a bundled model's name.
        output: the bundle to write, for a run; None for a bundle, which is there already.
        formats: of `FORMATS`. A run's bundle is always made, as all others are made of it.
        folder: where to put a copy of torch's artefacts, to take to another machine.
        progress: called with one line before each stage.
        how: of a run; see `export_run`.

    Raises:
        InputError: the source can't be read, the output can't be written, or an option does not fit the source.
        MissingRuntimeError: a package or a compiler is missing.
        X2CTError: something can't be made, or computes something else; nothing is written.
    """
    say = progress or (lambda _: None)
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise InputError.of("--format", "name", found=repr(unknown[0]), expected=", ".join(FORMATS))
    is_bundle = source.endswith(SUFFIX) or source in bundled() or (Path(source) / MANIFEST).exists()
    kinds = [name for name in formats if name in SUFFIXES]
    _check(source, is_bundle, output, kinds, folder, how)
    with tempfile.TemporaryDirectory(prefix="x2ct-export-") as name:
        scratch = Path(name)
        if is_bundle:
            bundle, parity = Bundle.load(source), None
        else:
            assert output is not None
            parity = export_run(source, scratch / output.name, progress=progress, **how)
            bundle = parity.bundle
        staged = Cache(scratch / "cache")
        made = [(recipe(bundle, network, kind), network) for kind in kinds for _, network in bundle.networks.items()]
        for one, network in made:
            say(f"making {one.file} of {network.file}")
            there = Cache().find(one)
            if there is None:
                staged.obtain(one, lambda target, n=network, k=one.kind: torchfiles.build(bundle, n, k, target))  # type: ignore[misc]
            else:
                staged.obtain(one, lambda target, path=there.path: _copy(path, target))  # type: ignore[misc]
        say("evaluating PyTorch in float32")
        reference = proof.reference_of(bundle)
        rows = proof.prove(bundle, reference, ["onnx", *kinds], scratch / "trials", staged.folder, say)
        proof.require(rows)
        say("writing")
        if output is not None:
            files = {file: (bundle.path / file).read_bytes() for file in bundle.files}
            bundle = Bundle.write(output, bundle, files)
        kept = tuple(_keep(staged, one) for one, _ in made)
        for artefact in kept if folder is not None else ():
            assert folder is not None
            folder.mkdir(parents=True, exist_ok=True)
            Cache().copy_to(artefact, folder / artefact.path.name)
    return Exported(bundle, parity, rows, kept)


def _check(
    source: str, is_bundle: bool, output: Path | None, kinds: Sequence[str], folder: Path | None, how: Mapping[str, Any]
) -> None:
    """What can be known to be wrong before anything heavy is loaded."""
    if kinds:
        proof.require_torch_backend()
    if folder is not None and not kinds:
        raise InputError.of("--artefacts", "options", found="no --format of torch's", expected="torchscript or aoti")
    if is_bundle:
        if output is not None:
            raise InputError.of("--output", "option", found="a bundle to export from", expected="none, for it stays")
        given = [name for name, value in how.items() if value is not None and (name, value) != ("dtype", "f16")]
        if given:
            raise InputError.of(source, "source", found="a bundle", expected=f"a run, which {given[0]} is for")
        if not kinds:
            raise InputError.of("--format", "name", found="onnx alone", expected="torchscript or aoti, from a bundle")
    elif output is None:
        raise InputError.of("--output", "option", found="none", expected=f"the bundle to write: NAME{SUFFIX}")
    else:
        check_target(output)


def _keep(staged: Cache, one: Any) -> Artefact:
    """What has been proven, in the user's cache."""
    proven = staged.find(one)
    assert proven is not None
    return Cache().obtain(one, lambda target: _copy(proven.path, target))


def _copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
