"""Where queries look, if they do not look everywhere: the centres of Luong et al. 2015, section 3.2."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qkv.attention.sight import Sight
from qkv.spec.choice import Choice, LocalMonotonic, LocalPredictive


def centres(
    choice: Choice, learned: Mapping[str, Tensor], q: Float[Tensor, "B H T K"], at: Int[Tensor, " T"], keys: Sight, count: int
) -> Float[Tensor, "#B #H T"] | None:
    """The place at whose keys each query looks, of so many in all; `at` is the place of each query. None where it looks
    everywhere."""
    exact = torch.promote_types(q.dtype, torch.float32)
    match choice:
        case LocalMonotonic():
            return at.to(exact)[None, None]
        case LocalPredictive():
            there = keys.present(0, count)
            lengths = q.new_tensor([count], dtype=exact) if there is None else there.sum(1).to(exact)
            hidden = torch.tanh(q.to(exact) @ learned["place_map"].to(exact))
            share = torch.sigmoid(torch.einsum("bhtk,hk->bht", hidden, learned["place_vector"].to(exact)))
            return lengths[:, None, None] * share
        case _:
            return None
