"""What a reader of stories knows of their places, and labels that are told by their words."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from qkv.attention.sight import Padded, Plain, Sight
from qkv.error import QkvError
from qkv.model.dropout import Noise
from qkv.model.position import counted_back
from qkv.model.transformer import build
from qkv.spec.count import parameters
from qkv.spec.halt import AllSteps, GoesOn, Halt, Halting, Itself, Stays
from qkv.spec.model import Classifier, Embedding, FromTheEnd, Joint, Likeness, Sentences, Spelled
from qkv.spec.part import Attention, Block, Depth, FeedForward, PreNorm, Recurrence, Stack
from qkv.spec.pooling import LastToken
from qkv.spec.position import Coordinates, Learned, LearnedStep, NoPosition, Position, Sinusoid

ENTRIES, PLACES = 30, 12
WORDS = ((4,), (5, 6), (7, 4, 8))
BLOCK = Block(Attention(2), FeedForward(24), norm=PreNorm())


def reader(encoder: Depth, position: Position = NoPosition(), gaps: float = 0.0) -> Classifier:
    embedding = Embedding(position, scale=False, unit=Sentences(5, FromTheEnd(gaps)))
    labels = ("one", "two", "three")
    return Classifier(Joint(ENTRIES), 16, embedding, encoder, labels, LastToken(), 0.0, Likeness(), Spelled(WORDS))


def universal(halt: Halting) -> Classifier:
    return reader(Recurrence(BLOCK, 3, Coordinates(Learned(PLACES), LearnedStep()), halt))


VANILLA = reader(Stack(BLOCK, depth=2), Learned(PLACES))
READERS = {
    "vanilla": VANILLA,
    "universal": universal(AllSteps()),
    "stays": universal(Halt(0.7, halted=Stays(), reads=Itself())),
    "goes on": universal(Halt(0.7, halted=GoesOn(), reads=Itself())),
}


def story(*lengths: int, seed: int = 1) -> torch.Tensor:
    """Sentences of so many words."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((1, len(lengths), 5), -1)
    for place, length in enumerate(lengths):
        ids[0, place, :length] = torch.randint(4, ENTRIES, (length,), generator=generator)
    return ids


@pytest.mark.parametrize("sight", [Plain(), Padded(torch.tensor([4, 2]))], ids=["plain", "padded"])
def test_places_are_counted_from_the_last_sentence(sight: Sight) -> None:
    found = counted_back(torch.zeros(2, 4, 5, dtype=torch.long), sight, PLACES, 0.1, None)
    second = [3, 2, 1, 0] if isinstance(sight, Plain) else [1, 0, 0, 0]  # what is padding stands anywhere
    assert found.places(0, 4).tolist() == [[3, 2, 1, 0], second]
    present = found.present(0, 4).sum(1).tolist()
    assert present == ([4, 4] if isinstance(sight, Plain) else [4, 2])
    assert found.keep(torch.tensor([1])).places(0, 4).tolist() == [second]


def test_places_are_left_out_in_training_alone_and_the_last_sentence_keeps_its_own() -> None:
    ids, sight = torch.zeros(400, 9, 5, dtype=torch.long), Padded(torch.tensor([9, 5] * 200))
    places = counted_back(ids, sight, 1000, 0.25, Noise(3, 7)).places(0, 9)
    again, other = (counted_back(ids, sight, 1000, 0.25, Noise(3, step)).places(0, 9) for step in (7, 8))
    assert torch.equal(places, again) and not torch.equal(places, other)
    whole, half = places[::2].flip(1), places[1::2, :5].flip(1)
    for counted in (whole, half):
        steps = counted.diff(dim=1)
        assert (counted[:, 0] == 0).all() and set(steps.unique().tolist()) == {1, 2}
        assert (steps == 2).float().mean().item() == pytest.approx(0.25, abs=0.03)
    known = counted_back(ids, sight, 10, 0.25, Noise(3, 7)).places(0, 9)
    assert torch.equal(known, places.clamp(max=9)), "no place is beyond the last that is known"


@pytest.mark.parametrize(
    "described",
    [
        reader(Stack(BLOCK, depth=1), Sinusoid(), 0.9),
        reader(Recurrence(BLOCK, 2, Coordinates(Sinusoid(), LearnedStep())), gaps=0.9),
    ],
    ids=["added once", "at every step"],
)
def test_sinusoids_reach_as_far_as_places_that_are_left_out_take_a_story(described: Classifier) -> None:
    model = build(described, 1)
    short, long = story(*[3] * 20), story(*[3] * 60)
    for ids in (short, long, short):
        assert model(ids, Plain(), Noise(1, 1)).isfinite().all()


def test_a_story_of_more_sentences_than_places_is_refused() -> None:
    model = build(VANILLA, 1)
    model(story(*[2] * PLACES), Plain())
    with pytest.raises(QkvError, match="the model knows 12 places, and a text has 13 sentences"):
        model(story(*[2] * (PLACES + 1)), Plain())


@pytest.mark.parametrize("name", READERS)
def test_a_story_is_answered_as_it_is_alone_however_it_is_padded(name: str) -> None:
    model = build(READERS[name], 2).double()
    short, long = story(3, 2, seed=3), story(4, 5, 1, 2, seed=4)
    both = torch.cat([torch.cat([short, torch.full((1, 2, 5), -1)], 1), long])
    with torch.no_grad():
        together = model(both, Padded(torch.tensor([2, 4]), blank=False))
        for row, one in enumerate((short, long)):
            torch.testing.assert_close(together[row], model(one, Plain())[0])
    trained = model(both, Padded(torch.tensor([2, 4]), blank=False))
    torch.testing.assert_close(trained.detach(), together)


def test_what_was_said_before_moves_no_later_sentence() -> None:
    model = build(replace(VANILLA, encoder=Stack(Block(FeedForward(8), norm=PreNorm()), depth=1)), 1)
    longer = story(2, 3, 4)
    with torch.no_grad():
        after, alone = (model.encode(each, Plain()) for each in (longer, longer[:, 1:]))
    torch.testing.assert_close(after[:, 1:], alone)


def test_a_label_is_as_likely_as_its_words_are_near() -> None:
    model, ids = build(READERS["universal"], 5), story(2, 4, 3)
    vector = model.encode(ids, Plain())[:, -1]
    assert model.spelling is not None and model.spelling.masks is not None
    masks = [torch.ones(16), *model.spelling.masks]
    assert max(map(len, WORDS)) == len(masks) > 1 and set(masks[1].tolist()) == {-1.0, 1.0}
    rows = sorted({word for words in WORDS for word in words})
    expected = [
        sum(vector[0] @ (mask * model.spelling.weight[rows.index(word)]) for mask, word in zip(masks, words, strict=False))
        for words in WORDS
    ]
    torch.testing.assert_close(model(ids, Plain())[0], torch.stack([torch.as_tensor(each) for each in expected]))
    model(ids, Plain()).sum().backward()
    assert model.spelling.weight.grad is not None and (model.spelling.weight.grad.abs().sum(1) > 0).all()
    assert sum(each.numel() for each in model.parameters()) == parameters(model.spec)
    short = build(replace(model.spec, answer=Spelled(((4,), (5,), (8,)))), 5)
    assert short.spelling is not None and short.spelling.weight.shape == (3, 16) and short.spelling.masks is None
    assert sum(each.numel() for each in short.parameters()) == parameters(short.spec)


def test_labels_of_the_same_words_in_another_order_are_others() -> None:
    model = build(replace(READERS["universal"], answer=Spelled(((4, 5), (5, 4), (4, 4)))), 5)
    logits = model(story(2, 4, 3), Plain())[0]
    assert (logits[0] - logits[1]).abs() > 1e-3
    with pytest.raises(QkvError, match="two labels are spelled by the same entries, and nothing tells them apart"):
        replace(VANILLA, answer=Spelled(((4, 5), (5, 4), (4, 5))))


def test_labels_without_words_are_refused() -> None:
    with pytest.raises(QkvError, match="nobody has said which words the labels are"):
        build(replace(VANILLA, answer=Spelled()), 1)(story(2), Plain())
    for wrong in (((4,), (5,)), ((4,), (), (5,)), ((4,), (5,), (ENTRIES,))):
        with pytest.raises(QkvError, match="each of the 3 labels is spelled by some entries of the vocabulary"):
            replace(VANILLA, answer=Spelled(wrong))
    for gaps in (-0.1, 1.0):
        with pytest.raises(QkvError, match=r"FromTheEnd\.gaps is a probability below 1"):
            FromTheEnd(gaps)
