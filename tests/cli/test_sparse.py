"""Sparse attention as a person types it: `qkv look pattern`, and what a text is too short for."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.cli.conftest import Ask, Runs, refused

from qkv.look.pattern import sight
from qkv.papers.catalogue import named
from qkv.spec.model import Joint, sides
from qkv.spec.part import Attention, Block, FeedForward, Stack
from qkv.spec.pattern import Causal, Local, PerHead, SameBlock, Stride, Summary


def walked(patterns: Any, length: int) -> torch.Tensor:
    """The fewest hops from every key to every query, by a walk from each key."""
    found = torch.full((length, length), -1)
    for start in range(length):
        waiting = deque([(start, 0)])
        found[start, start] = 0
        while waiting:
            place, hops = waiting.popleft()
            for query in range(length):
                if found[query, start] < 0 and any(each.allows(query, place) for each in patterns):
                    found[query, start] = hops + 1
                    waiting.append((query, hops + 1))
    return found


@pytest.mark.parametrize(
    "patterns",
    [
        [Causal() & (Local(5) | Stride(5))],
        [Causal() & (SameBlock(6) | Summary(6, 2))],
        [Causal() & Local(4)],
        [Local(3) | Stride(7)],
        [Causal() & Stride(4)],
        [Causal() & Local(5), Causal() & Stride(5)],
    ],
    ids=str,
)
def test_hops_are_those_of_a_walk(patterns: list[Any]) -> None:
    found = sight(PerHead(*patterns) if len(patterns) > 1 else patterns[0], 31)
    expected = walked(patterns, 31)
    assert torch.equal(found.hops, expected)
    ahead = any(each.ahead for each in patterns)
    assert int(found.pairs.sum()) == (31 * 31 if ahead else 31 * 32 // 2)


def test_blocks_in_turns_are_met_one_after_the_other() -> None:
    """What the second block carries it has from the first, and never the other way round (Child et al. 2019, section 4.3)."""
    one, other = Causal() & Local(4), Causal() & Stride(4)
    turns = Stack(Block(Attention(2, one), FeedForward(8)), Block(Attention(2, other), FeedForward(8)), depth=2)
    hops = sight(turns, 16).hops
    assert hops[5, 3] == 1 and hops[8, 4] == 2, "the second block is the first that reaches so far"
    assert hops[15, 2] == 2, "from 2 to 3 by the first block, from 3 to 15 by the second"
    assert hops[15, 8] == 2 and hops[15, 14] == 1
    assert (hops[torch.ones(16, 16).tril().bool()] >= 0).all()


@pytest.mark.parametrize("name", ["sparse-tiny", "sparse-cifar10", "sparse-enwik8", "sparse-imagenet64"])
def test_two_hops_connect_any_two_positions_in_the_networks_of_the_paper(name: str) -> None:
    found = sight(sides(named(name, Joint(256)))["decoder"], None)
    assert found.hops[found.pairs].min() >= 0 and found.hops.max() <= 2
    assert "are at most" in found.says()[1] and len(found.says()) == 2


def test_a_picture_of_a_pattern_a_model_and_a_run(ask: Ask, runs: Runs, tmp_path: Path) -> None:
    path = tmp_path / "seen.png"
    answer = ask("look", "pattern", "Causal() & (Local(8) | Stride(8))", "--out", str(path))
    assert answer.out.splitlines() == [
        "of 32 positions each sees 8.6 on average; dense, 16.5",
        "two positions that are connected are at most 2 hops apart, 1.51 on average",
        str(path),
    ]
    picture = Image.open(path).convert("RGB")
    colours = {colour for _, colour in picture.getcolors(2**24) or []}
    assert {(70, 130, 180), (255, 140, 0)} <= colours, "each of the joined sets has a colour"
    answer = ask("look", "pattern", "Causal() & Stride(8)", "--out", str(path))
    assert "448 of 528 pairs are not connected by 32 blocks" in answer.out
    for what in ("sparse-digits", str(runs.language)):
        answer = ask("look", "pattern", what, "--length", "40", "--out", str(path))
        assert answer.code == 0 and answer.out.startswith("of 40 positions"), answer
    assert ask("look", "pattern", "transformer-tiny", "--side", "encoder", "--out", str(path)).out.startswith("of 32")


def test_what_is_no_pattern_is_refused(ask: Ask, tmp_path: Path) -> None:
    refused(ask("look", "pattern", "Causal() & Lokal(8)"), "no run folder, no named model and no pattern", "'Local'")
    refused(ask("look", "pattern", "FeedForward(8)"), "is no pattern")
    refused(ask("look", "pattern", "Stride(0)"), "Stride.stride must be a whole number of at least 1")
    refused(ask("look", "pattern", "Summary(8, 9)"), "slot 0 of 9")
    refused(ask("look", "pattern", "Causal()", "--side", "encoder"), "no sides")
    refused(ask("look", "pattern", "sparse-tiny", "--side", "encoder"), "no 'encoder', but: decoder")
    refused(ask("look", "pattern", "Stride(128)", "--length", "100"), "100 positions are not enough")
    refused(ask("look", "pattern", "Stride(8)", "--length", "5000"), "more than 4096")
    refused(ask("look", "pattern", str(tmp_path)), "no model.json")


def test_a_stride_longer_than_the_texts_is_refused(ask: Ask, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a line of text\n" * 50)
    begin = ("train", "generate", "--out", str(tmp_path / "run"), "--text", str(text), "--model", "sparse-tiny", "--steps", "1")
    answer = ask(*begin, "--longest", "48", "--set", "embedding.position=Factorised([7,7])")
    refused(answer, "a stride or block of 64 is longer than the 48 positions", "--longest 64 or more")
    answer = ask(*begin, "--longest", "100", "--set", "embedding.position=Factorised([7,7])")
    refused(answer, "sparse-tiny knows 49 places, and texts of 100 tokens need 100")
