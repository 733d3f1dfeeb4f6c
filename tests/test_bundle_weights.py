"""A bundle is a model again: the weights come back out of the graphs, to run in PyTorch and to train on."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.tiny_model import CONFIG, SPEC, random_model  # noqa: E402
from x2ct.bundle import Bundle  # noqa: E402
from x2ct.errors import InputError  # noqa: E402
from x2ct.export import ExportReport, export_model, load_bundle_model, parity  # noqa: E402
from x2ct.export.parity import cases, measure, open_onnxruntime  # noqa: E402
from x2ct.model import ModelConfig, X2CTModel  # noqa: E402
from x2ct.training import TrainConfig  # noqa: E402


def bundle_of(folder: Path, config: ModelConfig) -> Bundle:
    """A random network's bundle, which says how it was configured."""
    spec = replace(SPEC, provenance={"training": TrainConfig(model=config).to_json()})
    return export_model(random_model(config), spec, folder / "tiny.x2ct").bundle


FINE = replace(
    CONFIG,
    encoder_stem=2,
    encoder_channels=(8, 8),
    encoder_features=12,
    lift_blocks=(0, 1),
    lift_blocks_up=(1,),
    blocks_up=(1,),
    expand=2,
    overlap=True,
    fuse=True,
    gated=True,
)
"""The bundled network's kind."""


@pytest.fixture(scope="module", params=[CONFIG, FINE], ids=["plain", "fine"])
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, exported: tuple[ExportReport, Any], config: ModelConfig) -> Bundle:
    return exported[0].bundle if config is CONFIG else bundle_of(tmp_path_factory.mktemp("weights"), config)


@pytest.fixture(scope="module")
def loaded(bundle: Bundle) -> X2CTModel:
    """Read where OpenVINO is not installed, as on a GPU machine that trains on from a bundle."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "find_spec", lambda name: None if name == "openvino" else find_spec(name))
        patch.setitem(sys.modules, "openvino", None)
        return load_bundle_model(bundle)


def check_weights(found: X2CTModel, wanted: X2CTModel) -> None:
    """Entry by entry to float16's rounding, but for the encoder's channel of ones, whose sum over a cell matters."""
    own = dict(found.named_parameters())
    assert own.keys() == dict(wanted.named_parameters()).keys()
    for name, value in wanted.named_parameters():
        got = own[name]
        if name == "encoder.stem.weight":
            torch.testing.assert_close(got[:, -1].sum((-1, -2)), value[:, -1].sum((-1, -2)), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(got.square().mean((1, 2, 3)), value.square().mean((1, 2, 3)), rtol=1e-3, atol=0)
            got, value = got[:, :-1], value[:, :-1]
        torch.testing.assert_close(got, value, rtol=1e-3, atol=1e-6)


def test_every_weight_comes_back(config: ModelConfig, loaded: X2CTModel) -> None:
    check_weights(loaded, random_model(config).fold())


def test_norms_come_back_too(tmp_path: Path) -> None:
    config = replace(CONFIG, norm="group", channels=(8,), blocks=(1,), lift_channels=(8,), lift_blocks=(0,))
    check_weights(load_bundle_model(bundle_of(tmp_path, config)), random_model(config).fold())


def test_a_model_to_train_computes_what_the_bundle_does(config: ModelConfig, bundle: Bundle, loaded: X2CTModel) -> None:
    """With unit-norm weights and gains again, after the normalisation that each optimiser step ends with."""
    weights = loaded.unfolded()
    model = X2CTModel(config)
    own = dict(model.named_parameters())
    assert own.keys() == weights.keys()
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(weights[name])
    before = copy.deepcopy(model.state_dict())
    model.normalize()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=2e-3, atol=1e-3)
    files = {name: bundle.file_of(network).read_bytes() for name, network in bundle.networks.items()}
    rows = measure(files, cases(model.eval(), SPEC), "f16", 2e-3, (open_onnxruntime(),))
    assert {row.graph for row in rows} == {"encoder", "lift", "denoiser"}
    assert len({row.sigma for row in rows if row.graph == "denoiser"}) == 3
    assert all(row.passed for row in rows)


def test_the_bundled_model_comes_back() -> None:
    """`load_bundle_model` compares its results with the bundle's at three sigmas, and refuses others."""
    model = load_bundle_model("chest")
    assert not model.training
    assert sum(value.numel() for value in model.parameters()) > 3e6
    # Row by row the weights have the norm that training gave them, to float16's rounding.
    weights = model.unfolded()["denoiser.core.net.enter.0.0.first.weight"]
    np.testing.assert_allclose(weights.square().mean((1, 2, 3, 4)).sqrt().numpy(), 1.0, atol=1e-3)


def test_what_a_bundle_does_not_say_or_is_not_is_refused(bundle: Bundle) -> None:
    with pytest.raises(InputError, match=r"provenance\.training") as caught:
        load_bundle_model(replace(bundle, provenance={}))
    assert "\n" not in str(caught.value)
    deeper = TrainConfig(model=replace(CONFIG, lift_blocks=(1, 2)))
    with pytest.raises(InputError, match="another graph") as caught:
        load_bundle_model(replace(bundle, provenance={"training": deeper.to_json()}))
    assert "\n" not in str(caught.value)
