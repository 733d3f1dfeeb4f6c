"""A bundle of x2ct as a bundle of MONAI (the Medical Open Network for AI).

`models/` has the three networks in TorchScript and the bundle that they were made of; `configs/metadata.json` what
MONAI's tools want to know of them; `configs/inference.json` the network from X-rays to CT, `XRaysToCT`, and a run of
it. The sampling loop is the core's (`x2ct.engine.external`), so x2ct must be installed where the bundle is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from x2ct import __version__
from x2ct._core import LINE_INTEGRALS
from x2ct.bundle import Bundle
from x2ct.engine.external import Arrays, sample
from x2ct.errors import InputError
from x2ct.export.triton import BUNDLE, copy_bundle
from x2ct.files.text import Json
from x2ct.io import report
from x2ct.io.ct.volume import Volume
from x2ct.io.xray.radiograph import XRay

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
MONAI = "1.6.1"  # the release of MONAI whose checks the tests run (`verify_metadata`, `verify_net_in_out`)


class XRaysToCT(nn.Module):
    """X-rays to a CT by a whole sampling run, as a MONAI bundle's network.

    `models` is that folder of a MONAI bundle that `x2ct export` wrote. Loading TorchScript runs its code: open bundles
    of makers whom you trust. The seed is 0 to 2**64 - 1; `steps` are noise levels, by default the bundle's. Raises
    InputError where the bundle in the folder is damaged.
    """

    def __init__(self, models: str | PathLike[str], seed: int = 0, steps: int | None = None) -> None:
        super().__init__()
        self.bundle, self.seed, self.steps = Bundle.load(Path(models) / BUNDLE), seed, steps
        for name, _ in self.bundle.networks.items():
            self.add_module(name, torch.jit.load(Path(models) / f"{name}.ts", map_location="cpu"))  # type: ignore[no-untyped-call]

    def forward(self, image: Tensor) -> Tensor:
        """Return float32 HU [1, 1, X, Y, Z] of one patient's line integrals [1, V, H, W].

        A channel is the picture of the bundle's own view of that number; one of zeros is a view without an X-ray.
        Raises InputError where there is no X-ray, or one that can't be used.
        """
        pictures = zip(self.bundle.geometry.views, image[0].detach().cpu().numpy(), strict=True)
        xrays = {view.name: XRay(picture, True, source=view.name) for view, picture in pictures if picture.any()}
        networks = dict(self.bundle.networks.items())

        def evaluate(name: str, inputs: Arrays) -> Arrays:
            tensors = (torch.from_numpy(inputs[tensor.name]).to(image.device) for tensor in networks[name].inputs)
            with torch.no_grad():
                results = zip(networks[name].outputs, self.get_submodule(name)(*tensors), strict=True)
            return {tensor.name: value.cpu().numpy() for tensor, value in results}

        hu = sample(self.bundle, evaluate, xrays, seed=self.seed, steps=self.steps)
        return torch.from_numpy(hu)[None, None].to(image.device)

    def run(self, files: Mapping[str, str], output: str | PathLike[str], device: str = "cpu") -> Path:
        """Read X-rays, .npy files of line integrals [H, W] by view name, sample on PyTorch's device, and write the CT.

        Raises InputError where a file or an X-ray can't be used.
        """
        views = self.bundle.geometry.views
        pictures = {name: XRay.load(path).image for name, path in files.items()}
        image = np.stack([pictures.get(view.name, np.zeros(view.shape, np.float32)) for view in views])
        ct = self.to(device)(torch.from_numpy(image)[None].to(device))
        return Volume(ct[0, 0].cpu().numpy(), self.bundle.grid.index_to_mm, synthetic=True).save(output)


def write(bundle: Bundle, target: Path, engines: Sequence[Path]) -> None:
    """Write a MONAI bundle with the TorchScript files of encoder, lift and denoiser to a folder that is not there yet.

    Raises InputError where the bundle's views are of several shapes, which one tensor can't hold; OSError as it writes.
    """
    models, configs = target / "models", target / "configs"
    models.mkdir(parents=True)
    configs.mkdir()
    copy_bundle(bundle, models / BUNDLE)
    for (name, _), engine in zip(bundle.networks.items(), engines, strict=True):
        (models / f"{name}.ts").write_bytes(engine.read_bytes())
    for file, content in (("metadata", _metadata(bundle)), ("inference", _inference(bundle))):
        (configs / f"{file}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _metadata(bundle: Bundle) -> dict[str, Json]:
    """Return what `python -m monai.bundle verify_metadata` reads."""
    views = bundle.geometry.views
    if len({view.shape for view in views}) > 1:
        shapes = ", ".join(f"{view.name} {view.shape[0]} x {view.shape[1]}" for view in views)
        raise InputError.of(bundle.path, "views", found=shapes, expected="one shape, as MONAI's network has one input")

    def tensor(form: str, channels: list[str], shape: tuple[int, ...], value_range: tuple[float, float]) -> Json:
        return {
            "type": "image",
            "format": form,
            "num_channels": len(channels),
            "spatial_shape": list(shape),
            "dtype": "float32",
            "value_range": list(value_range),
            "is_patch_data": False,
            "channel_def": {str(number): name for number, name in enumerate(channels)},
        }

    pictures = tensor("line integrals", [view.name for view in views], views[0].shape, LINE_INTEGRALS)
    volume = tensor("hounsfield", ["CT"], bundle.grid.shape, bundle.intensity.window_hu)
    return {
        "schema": SCHEMA,
        "name": bundle.name,
        "version": bundle.version,
        "changelog": {bundle.version: f"exported by x2ct {__version__} from the bundle {bundle.checksum}"},
        "monai_version": MONAI,
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"x2ct": __version__},
        "task": "Synthesis of a CT volume from one or two X-rays",
        "description": "A patch-conditioned 3D diffusion model, sampled by x2ct. The provenance is in models/"
        f"{BUNDLE}/model.json.",
        "authors": "see the provenance",
        "copyright": "see the provenance",
        "data_source": "see the provenance",
        "data_type": "npy",
        "intended_use": report.NOTICE,
        "network_data_format": {"inputs": {"image": pictures}, "outputs": {"pred": volume}},
    }


def _inference(bundle: Bundle) -> dict[str, Json]:
    """Return what `python -m monai.bundle run` reads."""
    return {
        "bundle_root": ".",
        "device": "cpu",
        "xrays": {view.name: f"{view.name}.npy" for view in bundle.geometry.views},
        "output": "ct.nii.gz",
        "seed": 0,
        "steps": None,
        "network_def": {
            "_target_": "x2ct.export.monai.XRaysToCT",
            "models": "$@bundle_root + '/models'",
            "seed": "@seed",
            "steps": "@steps",
        },
        "run": ["$@network_def.run(@xrays, @output, @device)"],
    }
