"""`x2ct export` from end to end: a run to a bundle, a bundle to what a runtime makes of it; proven, then written."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from x2ct.bundle import MANIFEST, SUFFIX, Bundle, bundled, check_target
from x2ct.errors import InputError, MissingRuntimeError
from x2ct.export import plans, proof
from x2ct.export.proof import Proof
from x2ct.export.run import ExportReport, export_run
from x2ct.files.atomic import check_folder, check_new_folder, write_beside
from x2ct.files.text import Json
from x2ct.runtimes.cache.cache import Build, Cache, Engine, Recipe, Say, copy_to
from x2ct.runtimes.cache.engines import PRECISIONS, SUFFIXES, TENSORRT, TORCH, Machine
from x2ct.runtimes.discovery import backend_status, choose

FOLDERS: Mapping[str, tuple[str, ...]] = {"triton": (), "monai": ("torchscript",)}
"""Formats that are a folder for another framework, and the engines that go into it."""

FORMATS = ("onnx", *sorted(SUFFIXES, reverse=True), TENSORRT, *FOLDERS)  # what can be made; "onnx" is the bundle itself

_OTHERS = "torchscript, aoti or tensorrt"


@dataclass(frozen=True)
class RunOptions:
    """What is stated of a run, and of a bundle has been stated already; see `export_run`."""

    name: str | None = None
    dtype: str = "f16"
    ema: float | None = None
    provenance: Mapping[str, Json] | None = None
    best: bool = False


@dataclass(frozen=True)
class Exported:
    """The bundle, new or as it was given, the proofs of its files, and the compiled engines of it in the cache.

    `parity` is of a run's graphs, against the network that was trained; `folder` was written for another framework.
    """

    bundle: Bundle
    parity: ExportReport | None
    proofs: tuple[Proof, ...]
    engines: tuple[Engine, ...]
    folder: Path | None = None

    def to_json(self) -> dict[str, Json]:
        """Return the report as plain data."""
        return {
            "path": str(self.bundle.path),
            "checksum": self.bundle.checksum,
            "bytes": self.bundle.size_bytes,
            **(self.parity.to_json() if self.parity else {}),
            "proof": [row.to_json() for row in self.proofs],
            "engines": [engine.to_json() for engine in self.engines],
            **({"folder": str(self.folder)} if self.folder else {}),
        }


def export(
    source: str,
    output: Path | None,
    formats: Sequence[str] = ("onnx",),
    *,
    run: RunOptions | None = None,
    folder: Path | None = None,
    precision: str | None = None,
    device: str = "cpu",
    progress: Say = lambda _: None,
) -> Exported:
    """Make what is asked for of a run or a bundle, prove it, and only then write it.

    The source is a folder that `x2ct train` wrote, or a bundle's folder or a bundled model's name; `output` the bundle
    to write of a run, or the folder to write for a format of `FOLDERS`, which is made alone, of a bundle. A run's
    bundle is always made, as all other formats are made of it; the options `run` are of a run alone. `folder` gets
    copies of the compiled engines. `precision` is the denoiser's in what is made of a bundle, by default bf16 in
    TensorRT's plan and f32 in the others; `device` ("cpu", "cuda" or "cuda:N") is what torch's engines are made for and
    proven on. `progress` is called with one line before each stage.

    Raises InputError: the source can't be read, the output can't be written, or an option does not fit the source;
    MissingRuntimeError: a package, a compiler, TensorRT or its GPU is missing; X2CTError: something can't be made, or
    computes something else; nothing is written.
    """
    options = run or RunOptions()
    kinds = _kinds(formats, folder, precision, device)
    plan_options = plans.PlanOptions(precision or plans.PlanOptions.precision)
    torch_options = precision or "f32", choose(device, TORCH).device if set(kinds) & set(SUFFIXES) else "cpu"
    framework = next((name for name in formats if name in FOLDERS), None)
    target = _target(source, output, kinds, options, framework)
    with tempfile.TemporaryDirectory(prefix="x2ct-export-") as name:
        scratch = Path(name)
        parity = None
        if target is not None:
            parity = export_run(source, scratch / target.name, **vars(options), progress=progress)
        bundle = parity.bundle if parity is not None else Bundle.load(source)
        scratch_cache, compiled = Cache(scratch / "cache"), list[tuple[Recipe, Engine]]()
        for recipe, build in _builds(bundle, kinds, plan_options, torch_options, progress):
            there = Cache().find(recipe)
            if there is None:
                progress(f"making {recipe.file}")
            compiled.append((recipe, scratch_cache.obtain(recipe, _copier(there) if there else build)))
        progress("evaluating PyTorch in float32")
        reference = proof.reference_of(bundle)
        trials = proof.trials(["onnx", *kinds], plan=(plan_options.precision, plan_options.device), torch=torch_options)
        rows = proof.prove(bundle, reference, trials, scratch / "trials", scratch_cache.root, progress)
        proof.require(rows)
        progress("writing")
        if target is not None:
            bundle = bundle.save_as(target)
        engines = tuple(Cache().obtain(recipe, _copier(engine)) for recipe, engine in compiled)
        for engine in engines if folder is not None else ():
            copy_to(engine, Path(folder or "") / engine.path.name)
        if framework is not None and output is not None:
            from x2ct.export import monai, triton

            files = [engine.path for engine in engines]  # in the order of the bundle's networks; Triton takes none
            write = triton.write if framework == "triton" else partial(monai.write, engines=files)
            write_beside(output, lambda part: write(bundle, part))
    return Exported(bundle, parity, rows, engines, output if framework else None)


def _kinds(formats: Sequence[str], folder: Path | None, precision: str | None, device: str) -> list[str]:
    """Return the formats that are made of a bundle. Raises before anything heavy where one can't be had here."""
    for name in formats:
        if name not in FORMATS:
            raise InputError.of("--format", "name", found=repr(name), expected=", ".join(FORMATS))
        if name in FOLDERS and len(formats) > 1:
            raise InputError.of("--format", "name", found=" and ".join(formats), expected=f"{name} alone")
    kinds = [kind for name in dict.fromkeys(formats) if name != "onnx" for kind in FOLDERS.get(name, (name,))]
    for option, value in (("--compiled", folder), ("--precision", precision)):
        if value is not None and not kinds:
            raise InputError.of(option, "options", found=f"{formats[0]} alone", expected=f"--format {_OTHERS}")
    if precision is not None and precision not in PRECISIONS:
        raise InputError.of("--precision", "name", found=repr(precision), expected=", ".join(PRECISIONS))
    if any(name in SUFFIXES for name in kinds):
        status = backend_status(TORCH)  # before a long build of what nothing here can run
        if not status["available"]:
            raise MissingRuntimeError(status["reason"])
    elif device != "cpu":
        raise InputError.of("--device", "options", found="nothing of torch's", expected="--format aoti or torchscript")
    if TENSORRT in kinds:
        Machine.here()
    if folder is not None:
        check_folder(folder)
    return kinds


def _target(
    source: str, output: Path | None, kinds: Sequence[str], options: RunOptions, framework: str | None
) -> Path | None:
    """Return the bundle to write; None where the source is one. Raises where options do not go together."""
    is_bundle = source.endswith(SUFFIX) or source in bundled() or (Path(source) / MANIFEST).exists()
    of_run = options != RunOptions()
    if framework is not None and (of_run or not is_bundle):
        other, expected = "options of a run" if is_bundle else "a run", f"a bundle alone, for --format {framework}"
        raise InputError.of(source, "source", found=other, expected=expected)
    if is_bundle and framework is None:
        if output is not None or of_run:
            other = "--output" if output is not None else "options of a run"
            raise InputError.of(source, "source", found=f"a bundle, and {other}", expected="a bundle alone, or a run")
        if not kinds:
            raise InputError.of("--format", "name", found="onnx alone", expected=f"{_OTHERS}, from a bundle")
        return None
    if output is None:
        expected = f"the folder to write for {framework}" if framework else f"the bundle to write: NAME{SUFFIX}"
        raise InputError.of("--output", "option", found="none", expected=expected)
    if framework is not None:
        check_new_folder(output)
        return None
    check_target(output)
    if not Path(source).is_dir():
        raise InputError.of(source, "source", found="nothing there", expected="the folder of a run, or a bundle")
    return output


def _builds(
    bundle: Bundle, kinds: Sequence[str], plan_options: plans.PlanOptions, torch_options: tuple[str, str], say: Say
) -> Iterator[tuple[Recipe, Build]]:
    """Yield each engine's recipe and what builds it; `torch_options` are the precision and the device of torch's."""
    from x2ct.export import torchfiles

    precision, device = torch_options
    for kind in kinds:
        if kind == TENSORRT:
            yield from plans.builds(bundle, plan_options, Cache(), say=say)[1]
        else:
            yield from torchfiles.builds(bundle, kind, device, precision)


def _copier(engine: Engine) -> Build:
    return partial(shutil.copyfile, engine.path)
