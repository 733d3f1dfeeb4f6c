"""`x2ct demo`: the main job on the bundled pair of X-rays, beside the true CT that they were projected from.

The X-rays are written as the files that `x2ct drr` would write, so that there is something to try every command on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from x2ct.data.shards import resample_array
from x2ct.evaluation import metrics
from x2ct.geometry import Geometry
from x2ct.io.ct.volume import Volume
from x2ct.io.xray.radiograph import XRay
from x2ct.jobs.sample import SampleJob, open_sampler, sample_files
from x2ct.render import drr, preview, viewer

PAIR = Path(__file__).parents[1] / "models" / "demo"


class Demo(NamedTuple):
    """The files that the demo wrote, and figures of a sample and of the posterior mean against the true CT."""

    files: tuple[Path, ...]
    figures: dict[str, dict[str, float]]


def demo(
    folder: str | PathLike[str],
    model: str = "chest",
    *,
    threads: int = 0,
    stage: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int, float], None] = lambda *_: None,
) -> Demo:
    """Write the bundled X-rays, a sample, the posterior mean, the true CT, pictures and a page to a folder.

    The folder is made if need be; files of the same names are replaced. For the rest see `SampleJob` and
    `sample_files`. Raises X2CTError: any of the family.
    """
    geometry = Geometry.load(PAIR / drr.GEOMETRY_FILE)
    target = drr.check_folder(folder, geometry)
    images = {view.name: np.load(PAIR / f"{view.name}.npy").astype(np.float32) for view in geometry.views}
    written = drr.save(target, images, geometry)
    job = SampleJob(
        target / "ct.nii.gz",
        ap=target / "ap.npy",
        lateral=target / "lateral.npy",
        geometry=target / drr.GEOMETRY_FILE,
        model=model,
        preview=target / "ct.png",
        report=target / "ct.json",
        threads=threads,
    )
    mean = replace(job, output=target / "mean.nii.gz", mean=True, preview=None, report=None)
    sampler = open_sampler(job)
    for each in (job, mean):
        sample_files(each, sampler=sampler, stage=stage, progress=progress)
    scan = Volume.load(PAIR / "truth.nii.gz")
    truth = Volume(resample_array(scan.hu, scan.affine, sampler.grid), sampler.grid.index_to_mm)
    volumes = {"one sample": Volume.load(job.output), "posterior mean": Volume.load(mean.output)}
    xrays = {name: XRay.load(path) for name, path in job.inputs.items()}
    pictures = (
        truth.save(target / "truth.nii.gz"),
        preview.save(target / "comparison.png", volumes["one sample"], xrays, truth=truth),
        viewer.save(target / "ct.html", volumes["one sample"], xrays, name="ct", beside={"truth": truth}),
    )
    window = sampler.bundle.intensity.window_hu
    figures = {
        name: {
            "PSNR dB": metrics.psnr(truth.hu, volume.hu, window),
            "SSIM": metrics.ssim(truth.hu, volume.hu, window),
            "MAE HU": metrics.mae_hu(truth.hu, volume.hu, window=window)["all"],
            "bone Dice": metrics.bone_dice(truth.hu, volume.hu),
        }
        for name, volume in volumes.items()
    }
    return Demo((*written, *job.outputs, *mean.outputs, *pictures), figures)
