"""The optimiser, and its moments by parameter name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qkv.spec.run import Adam

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def optimiser(spec: Adam, model: nn.Module) -> torch.optim.Adam:
    """Adam with PyTorch's fused update; matrices decay, where anything does."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    rest = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    how: dict[str, Any] = {"lr": 0.0, "betas": (spec.beta1, spec.beta2), "eps": spec.epsilon, "fused": True}
    if not spec.decay:
        return torch.optim.Adam(model.parameters(), **how)
    groups = [{"params": matrices, "weight_decay": spec.decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, **how)


def moments(adam: torch.optim.Adam, model: nn.Module) -> dict[str, Tensor]:
    """What Adam remembers, by moment and parameter name."""
    return {
        f"{moment}/{name}": adam.state[parameter][moment]
        for name, parameter in model.named_parameters()
        for moment in MOMENTS
        if parameter in adam.state
    }


def put_moments(adam: torch.optim.Adam, model: nn.Module, remembered: dict[str, Tensor]) -> None:
    """The inverse of `moments`."""
    for name, parameter in model.named_parameters():
        adam.state[parameter] = {moment: remembered[f"{moment}/{name}"].to(parameter.device) for moment in MOMENTS}
