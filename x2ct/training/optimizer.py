"""The optimiser: AdamW for all weights, or Muon for the hidden layers' matrices beside AdamW for the rest."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from x2ct.model import X2CTModel
from x2ct.model.layers import MPConv, ToVoxels
from x2ct.training.config import OptimConfig
from x2ct.training.cudagraph import scaled_by

FEWEST_INPUTS = 16
"""A convolution over fewer channels is a first layer, which Muon's authors leave to AdamW."""


class Optimizer:
    """PyTorch's AdamW and, where the configuration asks for it, PyTorch's Muon, behind one step.

    On a GPU AdamW counts its steps there, so that a CUDA graph can record one.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces a matrix's update by the nearest
    orthogonal one. A convolution's weight is the matrix [outputs, inputs * taps]; Muon works on a view of it. Its rate
    is scaled to the root mean square of AdamW's updates (Liu et al. 2025, "Muon is Scalable for LLM Training").
    """

    def __init__(self, model: X2CTModel, config: OptimConfig) -> None:
        self._names = {parameter: name for name, parameter in model.named_parameters()}
        hidden = _hidden_weights(model) if config.muon else []
        self._matrices = {weight: weight.detach().view(len(weight), -1) for weight in hidden}
        rest = [parameter for parameter in self._names if parameter not in self._matrices]
        adamw = torch.optim.AdamW(
            rest, betas=config.betas, eps=1e-8, weight_decay=config.weight_decay, capturable=rest[0].is_cuda
        )
        self._optimizers: list[tuple[torch.optim.Optimizer, float]] = [(adamw, config.rate)]
        if hidden:
            muon = torch.optim.Muon(
                list(self._matrices.values()),
                momentum=config.muon_momentum,
                weight_decay=0.0,
                adjust_lr_fn="match_rms_adamw",
            )
            self._optimizers.append((muon, config.muon))

    def step(self, share: float | Tensor) -> None:
        """Take one step with the gradients at hand, at `share` of the configured rates, and drop the gradients.

        The share, from 0 to 1, is a tensor without axes where the step is recorded, and another at each replay.
        """
        if isinstance(share, Tensor):
            with scaled_by(share, list(self._names)):
                self._step(1.0)
        else:
            self._step(share)
        for parameter in (*self._names, *self._matrices.values()):
            parameter.grad = None

    def _step(self, share: float) -> None:
        for weight, matrix in self._matrices.items():
            matrix.grad = None if weight.grad is None else weight.grad.reshape(matrix.shape)
        for optimizer, rate in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = share * rate
            optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Return the moments, each named "key.parameter" (references, not copies)."""
        return {
            f"{key}.{name}": value
            for parameter, name in self._names.items()
            for key, value in self._state_of(parameter).items()
        }

    def load(self, moments: dict[str, Tensor]) -> None:
        """Take moments that `state` returned; parameters without any start anew."""
        for parameter, name in self._names.items():
            state = self._state_of(parameter)
            state.clear()
            for key in ("step", "exp_avg", "exp_avg_sq", "momentum_buffer"):
                value = moments.get(f"{key}.{name}")
                if value is not None:
                    # AdamW counts its steps on the CPU, unless it is to be recorded.
                    state[key] = value if key == "step" and not parameter.is_cuda else value.to(parameter.device)

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        hidden = parameter in self._matrices
        optimizer, _ = self._optimizers[hidden]
        return cast(dict[str, Tensor], optimizer.state[self._matrices[parameter] if hidden else parameter])


def _hidden_weights(model: X2CTModel) -> list[Tensor]:
    """Return the convolutions' weights but for first and last layers."""
    return [
        module.weight
        for module in model.modules()
        if isinstance(module, MPConv)
        and not isinstance(module, ToVoxels)
        and module.weight.ndim > 2
        and module.weight.shape[1] >= FEWEST_INPUTS
    ]
