"""Estimates without a network, fitted on training patients at the grid's resolution.

Their X-rays are projected from their whole CT in the same geometry as the test's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from x2ct.data.shards import Patient, resample
from x2ct.errors import InputError
from x2ct.evaluation.metrics import WINDOW_HU, FloatArray, Window
from x2ct.geometry import Geometry, View, attenuation
from x2ct.geometry.grid import Grid

NAMES = ("mean volume", "nearest patient", "linear regression")

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Tikhonov weights to choose from, per patient and relative to the mean variance of the back-projected views."""


@dataclass(frozen=True)
class Baselines:
    """The fitted baselines."""

    ids: tuple[str, ...]  # the training patients
    volumes: FloatArray  # (patients, X, Y, Z) float32 HU, clipped to the window
    xrays: FloatArray  # (patients, pixels of all views) float32 line integrals
    geometry: Geometry  # the views, in the order of `xrays`
    grid: Grid  # of `volumes`
    window: Window  # lowest and highest HU
    penalty: float  # the regression's Tikhonov weight, chosen by leaving out one training patient at a time

    @classmethod
    def fit(
        cls,
        patients: Sequence[Patient],
        grid: Grid,
        geometry: Geometry,
        window: Window = WINDOW_HU,
        *,
        threads: int = 0,
        progress: Callable[[int, int, str], None] = lambda *_: None,
    ) -> Baselines:
        """Resample and project each training patient, and choose the regression's penalty.

        Raises InputError: fewer than three patients.
        """
        if len(patients) < 3:
            raise InputError.of("baselines", "patients", found=len(patients), expected="at least 3 to train on")
        volumes, images = np.empty((len(patients), *grid.shape), np.float32), []
        for index, patient in enumerate(patients):
            progress(index, len(patients), patient.id)
            volumes[index] = np.clip(resample(patient, grid), *window)
            views = geometry.project(attenuation(patient.hu()), patient.index_to_mm, threads)
            images.append(np.concatenate([image.ravel() for image in views]))
        xrays = np.stack(images).astype(np.float32)
        ids = tuple(patient.id for patient in patients)
        penalty = _best_penalty(volumes, _features(xrays, geometry, grid))
        return cls(ids, volumes, xrays, geometry, grid, window, penalty)

    def predict(self, xrays: Sequence[FloatArray]) -> dict[str, FloatArray]:
        """Return each baseline's volume for a case's X-rays, by its name."""
        return dict(zip(NAMES, (self.mean(), self.nearest(xrays), self.linear(xrays)), strict=True))

    def mean(self) -> FloatArray:
        """Return the mean training volume, float32 HU (X, Y, Z)."""
        return np.asarray(self.volumes.mean(axis=0), np.float32)

    def nearest(self, xrays: Sequence[FloatArray]) -> FloatArray:
        """Return the volume of the training patient whose X-rays are closest in the root mean square sense."""
        return np.asarray(self.volumes[self.ids.index(self.nearest_id(xrays))])

    def nearest_id(self, xrays: Sequence[FloatArray]) -> str:
        """Return which patient that is."""
        distance = np.mean((self.xrays - self._flat(xrays)) ** 2, axis=1, dtype=np.float64)
        return self.ids[int(np.argmin(distance))]

    def includes(self, xrays: Sequence[FloatArray]) -> bool:
        """Return whether a training patient has these very X-rays: then the test would be on training data."""
        return bool(np.any(np.all(np.abs(self.xrays - self._flat(xrays)) < 1e-4, axis=1)))

    def linear(self, xrays: Sequence[FloatArray]) -> FloatArray:
        """Predict each voxel from an intercept and one Tikhonov-penalised weight a view on its line integral."""
        train = _features(self.xrays, self.geometry, self.grid)
        test = _features(self._flat(xrays)[None], self.geometry, self.grid)[0]
        scale = _scale(train)
        return np.clip(_predict(self.volumes, train / scale, test / scale, self.penalty), *self.window)

    def _flat(self, xrays: Sequence[FloatArray]) -> FloatArray:
        shapes = [view.shape for view in self.geometry.views]
        if (sizes := [image.shape for image in xrays]) != shapes:
            raise InputError.of("baselines", "X-rays", found=sizes, expected=f"{shapes}, as the geometry says")
        return np.concatenate([np.asarray(image, np.float32).ravel() for image in xrays])


def back_projected(image: FloatArray, view: View, grid: Grid) -> FloatArray:
    """Return at each voxel the (bilinear) pixel it projects onto, 0 off the detector: float32 (X, Y, Z)."""
    affine = grid.index_to_mm
    indices = np.meshgrid(*map(np.arange, grid.shape), indexing="ij", sparse=True)
    x, y, z = (index * affine[a, a] + affine[a, 3] for a, index in enumerate(indices))
    u, v, w = (row[0] * x + row[1] * y + row[2] * z + row[3] for row in view.matrix)
    w = np.broadcast_to(w, grid.shape)
    at = np.stack([np.broadcast_to(v, grid.shape) / w, np.broadcast_to(u, grid.shape) / w])
    return np.asarray(ndimage.map_coordinates(image, at, np.float32, order=1, mode="constant", cval=0.0), np.float32)


def _features(xrays: FloatArray, geometry: Geometry, grid: Grid) -> FloatArray:
    """Return the back-projected views, (patients, views, X, Y, Z)."""
    ends = np.cumsum([view.shape[0] * view.shape[1] for view in geometry.views])[:-1]
    rows = (zip(np.split(row, ends), geometry.views, strict=True) for row in xrays)
    patients = [[back_projected(part.reshape(view.shape), view, grid) for part, view in row] for row in rows]
    return np.asarray(patients, np.float32)


def _scale(features: FloatArray) -> float:
    """Return the features' spread between patients, so that a penalty means the same for any X-ray unit."""
    return max(float(np.sqrt(features.var(axis=0).mean(dtype=np.float64))), 1e-6)


def _predict(volumes: FloatArray, train: FloatArray, test: FloatArray, penalty: float) -> FloatArray:
    """Fit a ridge regression at each voxel, the intercept unpenalised, to (patients, views, X, Y, Z) `train`."""
    centre, mean = train.mean(axis=0), volumes.mean(axis=0)
    x = train - centre
    moment = np.einsum("pvxyz,pwxyz->xyzvw", x, x, optimize=True)
    right = np.einsum("pvxyz,pxyz->xyzv", x, volumes - mean, optimize=True)
    moment += penalty * len(volumes) * np.eye(x.shape[1], dtype=np.float32)
    weights = np.linalg.solve(moment, right[..., None])[..., 0]
    return np.asarray(mean + np.einsum("vxyz,xyzv->xyz", test - centre, weights), np.float32)


def _best_penalty(volumes: FloatArray, features: FloatArray) -> float:
    """Return the penalty with the least squared error on patients left out one at a time, at every other voxel."""
    sparse, scaled = volumes[:, ::2, ::2, ::2], features[:, :, ::2, ::2, ::2] / _scale(features)

    def error(penalty: float) -> float:
        total = 0.0
        for out in range(len(volumes)):
            keep = np.arange(len(volumes)) != out
            guess = _predict(sparse[keep], scaled[keep], scaled[out], penalty)
            total += float(np.mean((guess - sparse[out]) ** 2, dtype=np.float64))
        return total

    return min(PENALTIES, key=error)
