"""Speculative decoding: a small model proposes tokens, the large one judges several at once, and what is written is distributed
as if the large one had written it alone (Leviathan et al. 2022, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float64
from torch import Tensor

from qkv.attention.sight import Plain
from qkv.decode.likelihood import places
from qkv.decode.sample import Dice, Rule, apply_all, draw
from qkv.error import QkvError
from qkv.model.state import State
from qkv.model.transformer import DecoderOnly

FIRST, ACCEPT, AGAIN = range(3)  # what a number is drawn for: each has dice of its own


@dataclass(frozen=True)
class Speculative:
    """A smaller model with the same vocabulary as the draft, which proposes `ahead` tokens at a time."""

    draft: DecoderOnly = field(repr=False)
    ahead: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.ahead < 1:
            raise QkvError(f"a draft proposes at least 1 token, not {self.ahead}")


class _Follower:
    """A model that has seen a text up to some token, and may be asked to go back."""

    def __init__(self, model: DecoderOnly, rules: Sequence[Rule]) -> None:
        self.model, self.rules, self.state = model, rules, State()

    def after(self, text: list[int], from_: int) -> list[Float64[Tensor, " V"]]:
        """What follows each token of a text from number `from_` on, as probabilities; all before it must have been seen."""
        self.state.trim(from_)
        seen = self.state.length
        ids = torch.tensor([text[seen:]], device=self.model.output.weight.device)
        logits = self.model.logits(self.model.decode(ids, Plain(), self.state)[0, from_ - seen :])
        return [self._ruled(logits[place], text[: from_ + place + 1]) for place in range(len(logits))]

    def _ruled(self, logits: Tensor, text: list[int]) -> Float64[Tensor, " V"]:
        history = torch.tensor([text], device=logits.device)
        return apply_all(self.rules, logits[None], history)[0].double().softmax(0)


@torch.inference_mode()
def speculated(
    model: DecoderOnly, prompt: Sequence[int], how: Speculative, rules: Sequence[Rule] = (), key: int = 0
) -> Iterator[int]:
    """The tokens after a prompt, one at a time, without end; distributed as the large model's own, given the rules.

    Raises QkvError where the draft has another vocabulary.
    """
    if how.draft.spec.vocabulary != model.spec.vocabulary:
        raise QkvError(
            f"a draft has the vocabulary of the model: {how.draft.spec.vocabulary} is not {model.spec.vocabulary}; train it on "
            f"the same text with the same tokenizer"
        )
    large, small, dice = _Follower(model, rules), _Follower(how.draft, rules), Dice(how.seed)
    text = list(prompt)
    while True:
        start, proposals = len(text), []
        # near the last place that either model knows fewer are proposed; a draft that knows no more places rests
        ahead = max(0, int(min(how.ahead, places(model) - start, places(how.draft) - start + 1)))
        for _ in range(ahead):
            odds = small.after(text, len(text) - 1)[-1]
            proposals.append(odds)
            text.append(_drawn(odds, dice, key, len(text), FIRST))
        verdicts = large.after(text, start - 1)
        kept = 0
        while kept < ahead:
            place, token = start + kept, text[start + kept]
            ratio = verdicts[kept][token] / proposals[kept][token]
            if dice.uniform([3 * key + ACCEPT], place)[0] >= ratio.item():
                break
            kept += 1
        del text[start + kept :]
        if kept < ahead:
            rest = (verdicts[kept] - proposals[kept]).clamp(min=0)
            text.append(_drawn(rest / rest.sum(), dice, key, len(text), AGAIN))
        else:
            text.append(_drawn(verdicts[kept], dice, key, len(text), AGAIN))
        yield from text[start:]


def _drawn(odds: Float64[Tensor, " V"], dice: Dice, key: int, place: int, what: int) -> int:
    return int(draw(odds.log()[None], dice.uniform([3 * key + what], place))[0])
