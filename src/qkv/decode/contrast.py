"""Contrastive search: likely tokens that are unlike what was said before (Su et al. 2022, "A Contrastive Framework for Neural
Text Generation", section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from qkv.attention.sight import Plain
from qkv.decode.sample import Rule, apply_all
from qkv.error import QkvError
from qkv.model.state import State
from qkv.model.transformer import DecoderOnly


@dataclass(frozen=True)
class Contrastive:
    """Of the `count` likeliest tokens the one with the largest (1 - penalty) x probability - penalty x the largest cosine of its
    vector and the vector of a token before it."""

    count: int = 4
    penalty: float = 0.6

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.penalty <= 1:
            raise QkvError(f"contrastive search compares at least 1 token, by a penalty from 0 to 1: not {self}")


@torch.inference_mode()
def contrasted(model: DecoderOnly, prompt: Sequence[int], how: Contrastive, rules: Sequence[Rule] = ()) -> Iterator[int]:
    """The tokens after a prompt, one at a time, without end.

    All candidates go one step on, side by side, before one of them is chosen: the vector of a token is that of the last block,
    at its own place.
    """
    state = State()
    ids = torch.tensor([list(prompt)], device=model.output.weight.device)
    vectors = model.decode(ids, Plain(), state)
    logits, before = model.logits(vectors[:, -1]), functional.normalize(vectors[0].float(), dim=1)
    step = model.stepper(Plain(), state)
    while True:
        probabilities = apply_all(rules, logits, ids).softmax(1)
        likely, tokens = probabilities[0].topk(min(how.count, probabilities.shape[1]))
        state.reorder(torch.zeros(len(tokens), dtype=torch.int64, device=ids.device))
        hidden = step(tokens)
        here = functional.normalize(hidden.float(), dim=1)
        value = (1 - how.penalty) * likely - how.penalty * (here @ before.t()).amax(1)
        value = value.masked_fill(likely == 0, -torch.inf)  # what the rules forbid is no candidate
        best = value.argmax()
        state.reorder(best.expand(len(tokens)))
        ids = torch.cat([ids, tokens[best].view(1, 1)], 1)
        before = torch.cat([before, here[best][None]])
        logits = model.logits(hidden[best][None])
        yield int(tokens[best])
