"""What is the same is not told apart, what differs is, and what differs by chance alone seldom is."""

from __future__ import annotations

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import PairedTest
from tests.cli.conftest import sentences

from qkv.study.significance import of_stretches, of_translations

TRUTH = [f"{line} {line[::-1]}" for line in sentences(120, 5)]


def spoilt(seed: int, share: float) -> list[str]:
    """The truth, with a share of its words replaced."""
    random = np.random.default_rng(seed)
    return [" ".join("xx" if random.random() < share else word for word in line.split()) for line in TRUTH]


def test_translations() -> None:
    one, other, worse = spoilt(1, 0.3), spoilt(2, 0.3), spoilt(3, 0.5)
    assert of_translations(one, one, TRUTH) == 1.0
    assert of_translations(one, worse, TRUTH) < 0.01 and of_translations(one, other, TRUTH) > 0.05
    shuffled = [one[place] for place in np.random.default_rng(0).permutation(len(one))]
    assert of_translations(one, shuffled, TRUTH) < 0.01
    theirs = PairedTest([("a", one), ("b", other)], {"BLEU": BLEU()}, [TRUTH], test_type="bs", n_samples=1000)()
    assert of_translations(one, other, TRUTH) == theirs[1]["BLEU"][1].p_value  # pyright: ignore


def test_stretches() -> None:
    random = np.random.default_rng(1)
    one = [(loss, 30) for loss in random.normal(60, 10, 300).tolist()]
    assert of_stretches(one, one) == 1.0
    better = [(loss - 1 + noise, 30) for (loss, _), noise in zip(one, random.normal(0, 2, 300).tolist(), strict=True)]
    assert of_stretches(one, better) == of_stretches(better, one) == 1 / 1001, "far less than stretches differ from each other"


def test_differences_by_chance_are_found_as_often_as_they_should_be() -> None:
    random = np.random.default_rng(2)
    found = 0
    for _ in range(200):
        one, other = ([(loss, 20) for loss in random.normal(50, 5, 150).tolist()] for _ in range(2))
        found += of_stretches(one, other) < 0.05
    assert found / 200 == pytest.approx(0.05, abs=0.04)
