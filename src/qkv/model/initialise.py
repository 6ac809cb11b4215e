"""The values before training.

| place                       | value                        | source                                     |
|-----------------------------|------------------------------|--------------------------------------------|
| embeddings and output map   | normal, deviation width^-0.5 | the released code of Vaswani et al. 2017   |
| every linear map            | Xavier uniform               | the same; q, k and v each by itself        |
| offsets of linear maps      | 0                            |                                            |
| norms                       | scale 1, offset 0            |                                            |
"""

from __future__ import annotations

import torch
from torch import nn

from qkv.model.attention import Attention, MemoryAttention
from qkv.model.embedding import Embedding


def initialise(model: nn.Module, seed: int) -> None:
    """Set every parameter, a pure function of the seed; the global random state stays as it was."""
    generator = torch.Generator().manual_seed(seed)
    parts: dict[nn.Module, int] = {module.qkv: 3 for module in model.modules() if isinstance(module, Attention)}
    parts |= {module.kv: 2 for module in model.modules() if isinstance(module, MemoryAttention)}
    for module in model.modules():
        match module:
            case Embedding():
                nn.init.normal_(module.weight, std=module.weight.shape[1] ** -0.5, generator=generator)
            case nn.Linear():
                for weight in module.weight.data.chunk(parts.get(module, 1)):
                    nn.init.xavier_uniform_(weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            case nn.LayerNorm():
                module.reset_parameters()
