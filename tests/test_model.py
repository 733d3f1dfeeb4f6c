"""Laws of the network: unit variance, folding, locality, the contract between lift and denoiser, EDM's limits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.tiny_run import CONFIG, GRID
from x2ct.errors import InputError
from x2ct.geometry import Geometry
from x2ct.model import ModelConfig, X2CTModel
from x2ct.model.denoiser import GATE_FADES
from x2ct.model.ema import PowerEMA, power_gamma
from x2ct.model.layers import MPConv, ToVoxels, mp_silu, mp_sum
from x2ct.training.config import TrainConfig

MODEL = TrainConfig.from_json(CONFIG).model
FINE = dataclasses.replace(
    MODEL,
    encoder_stem=2,
    encoder_channels=(8, 8, 8),
    encoder_features=12,
    lift_blocks=(0, 1),
    lift_blocks_up=(1,),
    blocks_up=(1,),
    expand=2,
    overlap=True,
    fuse=True,
    gated=True,
)
"""The bundled network's kind and more: finer image features, pointwise expansion, overlapping cells, a gate."""


@pytest.fixture(params=[MODEL, FINE], ids=["plain", "fine"])
def model(request: pytest.FixtureRequest) -> X2CTModel:
    """A network whose every weight matters: gains that start at zero are set."""
    return lively(request.param)


def lively(config: ModelConfig) -> X2CTModel:
    """A network of random weights whose learned gains, which may start at 0, let every layer through."""
    torch.manual_seed(0)
    network = X2CTModel(config)
    network.normalize()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 0:
                parameter.fill_(0.2 if name.endswith(("around", "fused.gain")) else 0.7)
    return network.eval()


def study(valid: tuple[float, float] = (1.0, 1.0)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random X-rays with their matrices and the whole grid's coordinates."""
    generator = torch.Generator().manual_seed(1)
    geometry = Geometry.parallel(("ap", "lateral"), shape=MODEL.detector, spacing_mm=(6.0, 6.0))
    matrices = torch.stack([torch.tensor(view.matrix).float() for view in geometry.views])[None]
    views = torch.rand(1, 2, 1, *MODEL.detector, generator=generator) * 6
    return views, torch.tensor([valid]), matrices, torch.from_numpy(GRID.coordinates())[None]


@pytest.mark.parametrize("kernel", [(), (3, 3), (3, 3, 3)])
def test_convolutions_keep_unit_variance(kernel: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = MPConv(64, 256, kernel)
    out = layer(torch.randn(64, 64, *(12,) * len(kernel)))
    inner = out[(..., *(slice(1, -1),) * len(kernel))]
    assert inner.std().item() == pytest.approx(1.0, abs=0.05)


def test_activation_and_sum_keep_unit_variance() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 1_000_000)
    assert mp_silu(a).square().mean().sqrt().item() == pytest.approx(1.0, abs=0.01)
    assert mp_sum(a, b, 0.3).std().item() == pytest.approx(1.0, abs=0.01)


@torch.no_grad()
def test_folding_changes_nothing_but_the_layers(model: X2CTModel) -> None:
    x, sigma = torch.randn(1, 1, 32, 32, 32), torch.tensor([0.7])
    before = model.denoiser(x, sigma, *model.condition(*study()))
    model.fold()
    after = model.denoiser(x, sigma, *model.condition(*study()))
    assert torch.allclose(before, after, atol=1e-5)
    assert all(m.gain is None for m in model.modules() if isinstance(m, MPConv))


NEAR = (
    dataclasses.replace(MODEL, blocks=(1, 0), lift_blocks=(1, 0)),
    dataclasses.replace(FINE, blocks=(1, 0), lift_blocks=(1, 0)),
    dataclasses.replace(FINE, blocks=(0, 0), blocks_up=(), blocks_added=(1, 0), lift_blocks_added=(1, 0)),
)
"""Networks that look less far than the volumes that can be tried in a moment."""


@torch.no_grad()
@pytest.mark.parametrize("config", NEAR, ids=["plain", "fine", "grown"])
def test_the_denoiser_looks_no_further_than_its_receptive_radius(config: ModelConfig) -> None:
    network = lively(config)
    radius = config.receptive_radius
    x, sigma = torch.randn(1, 1, 96, 16, 16), torch.tensor([0.7])
    conditions = (torch.zeros(1, 8, 24, 4, 4), torch.zeros(1, 1, 96, 16, 16))
    base = network.denoiser(x, sigma, *conditions)
    for place in range(40, 48):
        moved = x.clone()
        moved[..., place, 8, 8] += 10
        touched = (network.denoiser(moved, sigma, *conditions) - base).abs().amax((0, 1, 3, 4)).nonzero().flatten()
        assert place - radius <= touched.min() and touched.max() <= place + radius
        assert touched.max() - touched.min() > 16


@torch.no_grad()
@pytest.mark.parametrize("config", NEAR, ids=["plain", "fine", "grown"])
def test_a_tile_with_its_halo_equals_the_whole(config: ModelConfig) -> None:
    network = lively(config)
    views, valid, matrices, _ = study()
    coords = torch.from_numpy(dataclasses.replace(GRID, shape=(128, 16, 16)).coordinates())[None]
    features = network.encoder(views, valid)
    x, sigma = torch.randn(1, 1, 128, 16, 16), torch.tensor([0.7])
    whole = network.lift(features, matrices, coords, valid)
    denoised = network.denoiser(x, sigma, *whole)

    def widened(inner: slice, radius: int) -> tuple[slice, int]:
        halo = -(-radius // config.stride) * config.stride
        return slice(inner.start - halo, inner.stop + halo), halo

    interior = slice(56, 72)
    tile, halo = widened(interior, config.receptive_radius)
    region, lift_halo = widened(tile, config.lift_radius)
    lifted = network.lift(features, matrices, coords[:, :, region], valid)
    steps = (config.stem, 1)
    conditions = [c[:, :, lift_halo // s : -lift_halo // s] for c, s in zip(lifted, steps, strict=True)]
    for cut, c, s in zip(conditions, whole, steps, strict=True):
        assert torch.allclose(cut, c[:, :, tile.start // s : tile.stop // s], atol=1e-5)
    part = network.denoiser(x[:, :, tile], sigma, *conditions)
    assert torch.allclose(part[:, :, halo:-halo], denoised[:, :, interior], atol=1e-5)


@torch.no_grad()
def test_a_missing_view_can_hold_anything(model: X2CTModel) -> None:
    views, valid, matrices, coords = study((1.0, 0.0))
    base = model.condition(views, valid, matrices, coords)
    views[:, 1] = 99.0
    for a, b in zip(base, model.condition(views, valid, matrices, coords), strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
def test_the_lift_puts_a_pixel_on_its_ray() -> None:
    """A bright pixel reaches the cells whose centre projects onto it and no others: 'pixels' shows it bare."""
    torch.manual_seed(0)
    config = dataclasses.replace(MODEL, features="pixels", lift_channels=(8,), lift_blocks=(0,))
    network = X2CTModel(config).eval()
    views, valid, matrices, coords = study()
    base = network.condition(views, valid, matrices, coords)[0]
    views[0, 0, 0, 17:22, 37:42] += 50.0  # AP: rows from the head, columns from the patient's right
    changed = (network.condition(views, valid, matrices, coords)[0] - base).abs().amax((0, 1)) > 1e-6
    x, y, z = changed.nonzero(as_tuple=True)
    assert len(x) > 0
    assert set(y.tolist()) == set(range(8))  # all depths along the ray
    mm_x = (x.float() + 0.5) * 40 - 160
    mm_z = (z.float() + 0.5) * 40 - 160
    assert (mm_x - (31.5 - 39) * 6).abs().max() < 20
    assert (mm_z - (31.5 - 19) * 6).abs().max() < 20


@torch.no_grad()
def test_without_its_network_the_denoiser_is_the_normal_one_about_the_sketch(model: X2CTModel) -> None:
    """sketch + c_skip (x - sketch): exact for data that are normal about the sketch."""
    model.denoiser.core.out.gain.zero_()  # type: ignore[union-attr, operator]
    if model.denoiser.core.out.around is not None:  # type: ignore[union-attr]
        model.denoiser.core.out.around.zero_()  # type: ignore[union-attr, operator]
    if model.denoiser.core.gate is not None:  # type: ignore[union-attr]
        model.denoiser.core.gate.gain.zero_()  # type: ignore[union-attr, operator]
    model.denoiser.mixing.gain.zero_()  # type: ignore[union-attr, operator]
    conditions = model.condition(*study())
    sketch = conditions[1]
    x, sigma = torch.randn(1, 1, 32, 32, 32), 0.7
    share = MODEL.sigma_data**2 / (MODEL.sigma_data**2 + sigma**2)
    found = model.denoiser.denoise(x, torch.tensor([sigma]), *conditions)
    assert torch.allclose(found, sketch + share * (x - sketch), atol=1e-5)
    assert sketch.std() > 0.1


@torch.no_grad()
def test_a_gate_of_minus_one_drops_the_input_voxel_by_voxel() -> None:
    """What the gate closes is the network's answer alone; what it leaves at 0 is as without a gate."""
    model = lively(FINE)
    conditions, sigma = model.condition(*study()), torch.tensor([0.1])
    closed = torch.zeros(1, 1, 32, 32, 32)
    closed[..., :16] = -(0.1 + GATE_FADES) / 0.1
    model.denoiser.core.forward = lambda x, *_: (torch.zeros_like(x), closed)  # type: ignore[method-assign]
    x = torch.randn(1, 1, 32, 32, 32)
    gated = model.denoiser.denoise(x, sigma, *conditions)
    assert torch.allclose(gated[..., :16], conditions[1][..., :16], atol=1e-6)
    model.denoiser.core.forward = lambda x, *_: (torch.zeros_like(x), None)  # type: ignore[method-assign]
    assert torch.equal(gated[..., 16:], model.denoiser.denoise(x, sigma, *conditions)[..., 16:])


@torch.no_grad()
def test_starting_from_pure_noise_is_starting_about_the_sketch(model: X2CTModel) -> None:
    """Euler's method and DPM-Solver++ alike: the shift by (sigma / sigma_max) sketch commutes with every step."""
    conditions = model.condition(*study())
    sketch = conditions[1]
    noise = torch.randn(1, 1, 32, 32, 32)
    sigmas = [MODEL.sigma_max, 4.0, 0.9, 0.2, 0.0]
    x, z = MODEL.sigma_max * noise, sketch + MODEL.sigma_max * noise
    for now, after in zip(sigmas, sigmas[1:], strict=False):
        level = torch.tensor([now])
        x = after / now * x + (1 - after / now) * model.denoiser(x, level, *conditions)
        z = after / now * z + (1 - after / now) * model.denoiser.denoise(z, level, *conditions)
        assert torch.allclose(x + after / MODEL.sigma_max * sketch, z, atol=1e-3)


@torch.no_grad()
def test_preconditioning_has_edms_limits(model: X2CTModel) -> None:
    x = torch.randn(1, 1, 32, 32, 32) * 0.4
    conditions = model.condition(*study())
    assert torch.allclose(model.denoiser(x, torch.tensor([1e-6]), *conditions), x, atol=1e-2)
    far = model.denoiser(x * 1000, torch.tensor([400.0]), *conditions)
    assert far.abs().max() < 20  # x itself is a thousand times its usual size


def test_power_profile_has_the_papers_exponents() -> None:
    """Section 3.1: widths of 0.05 and 0.10 are gamma = 16.97 and 6.94."""
    assert power_gamma(0.05) == pytest.approx(16.97, abs=0.01)
    assert power_gamma(0.10) == pytest.approx(6.94, abs=0.01)


def test_power_average_has_the_stated_width() -> None:
    """Averaging the step number itself gives the profile's mean: t (gamma + 1) / (gamma + 2)."""
    holder = torch.nn.Linear(1, 1, bias=False)
    average, gamma = PowerEMA(holder, 0.1), power_gamma(0.1)
    for step in range(1, 2001):
        with torch.no_grad():
            holder.weight.fill_(step)
        average.move(holder, average.weight(step))
        if step == 2:  # nothing is left of what was there before the first step
            assert average.shadow["weight"].item() == pytest.approx(2 - 0.5 ** (gamma + 1), rel=1e-6)
    assert average.shadow["weight"].item() == pytest.approx(2000 * (gamma + 1) / (gamma + 2), rel=2e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"features": "magic"},
        {"norm": "batch"},
        {"blocks": (1,)},
        {"detector": (65, 64)},
        {"lift_blocks": ()},
        {"stem": 3},
        {"blocks_up": (1, 1)},
        {"lift_blocks_up": (1, 1, 1)},
        {"blocks_added": (1,)},
        {"lift_blocks_added": (1, 1, 1)},
    ],
)
def test_impossible_networks_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="model config"):
        dataclasses.replace(MODEL, **change)  # type: ignore[arg-type]


@torch.no_grad()
def test_added_blocks_change_nothing_until_they_are_trained() -> None:
    small, grown = X2CTModel(FINE), X2CTModel(dataclasses.replace(FINE, blocks_added=(1, 1), lift_blocks_added=(0, 1)))
    missing = grown.load_state_dict(small.state_dict(), strict=False)
    assert missing.missing_keys and not missing.unexpected_keys
    x, sigma = torch.randn(1, 1, 32, 32, 32), torch.tensor([0.7])
    before, after = (network.denoiser(x, sigma, *network.condition(*study())) for network in (small, grown))
    assert torch.equal(before, after)
    for name, value in grown.named_parameters():
        if name in missing.missing_keys and name.endswith("gain"):
            value.fill_(0.2)
    assert not torch.allclose(before, grown.denoiser(x, sigma, *grown.condition(*study())), atol=1e-3)


@torch.no_grad()
def test_overlapping_cells_start_as_cells_that_do_not() -> None:
    """The neighbours' gain starts at 0; their part and a cell's own can be told apart again once folded into one."""
    torch.manual_seed(0)
    layer = ToVoxels(16, 4, overlap=True)
    layer.normalize()
    x = torch.randn(1, 16, 5, 5, 5)
    own = ToVoxels(16, 4, overlap=False)
    own.weight.copy_(layer.weight[..., 1:2, 1:2, 1:2])
    assert torch.allclose(layer(x), own(x), atol=1e-5)
    layer.around.fill_(0.3)  # type: ignore[union-attr]
    wanted = layer(x)
    assert not torch.allclose(wanted, own(x), atol=1e-2)
    before = {name: value.detach().clone() for name, value in layer.named_parameters()}
    layer.fold()
    assert torch.allclose(layer(x), wanted, atol=1e-5)
    for name, value in layer.unfolded().items():
        assert torch.allclose(value, before[name], rtol=2e-3, atol=2e-3), name


def test_the_bundled_configuration_fits_its_bundle() -> None:
    """32 MB at two bytes a weight."""
    config = TrainConfig.load(Path(__file__).parent.parent / "benchmarks" / "chest.json").model
    assert sum(p.numel() for p in X2CTModel(config).parameters()) * 2 < 31.9e6
