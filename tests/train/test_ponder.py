"""What pondering costs, how long positions ponder, and what is said where halting has collapsed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.train.conftest import Listener, journal

from qkv.attention.sight import Placed, Plain
from qkv.data.batch import Batch, by_sentence, of_rows
from qkv.data.symbols import OURS
from qkv.decode.engine import load
from qkv.decode.seen import ponder as pondered
from qkv.error import QkvError
from qkv.look import ponder as picture
from qkv.model.dropout import Noise
from qkv.model.position import Places, trained_vectors
from qkv.model.transformer import EncoderDecoder, build
from qkv.papers.transformer import transformer
from qkv.papers.universal import universal
from qkv.spec.halt import GoesOn, Halt, Stays
from qkv.spec.model import Joint
from qkv.spec.part import PreNorm
from qkv.spec.position import Factorised, Learned, Sinusoid
from qkv.spec.run import Run
from qkv.store import inherit
from qkv.train import ponder
from qkv.train.loss import Smoothing
from qkv.train.pairs import losses, sight
from qkv.train.run import train


def model_of(halt: Halt, **more) -> EncoderDecoder:
    sizes = {"width": 16, "hidden": 24, "heads": 2, "steps": 4, "norm": PreNorm()}
    return build(universal(Joint(23), halt=halt, **(sizes | more)), 3)


def batch_of(*lengths: tuple[int, int]) -> Batch:
    random = np.random.default_rng(1)
    rows = [[random.integers(4, 23, size) for size in pair] for pair in lengths]
    return of_rows([source for source, _ in rows], [target for _, target in rows], OURS, OURS)


def test_the_cost_is_the_mean_over_all_positions_that_hold_a_token_on_either_side() -> None:
    model, batch = model_of(Halt(0.9, cost=0.3, bias=0.0)), batch_of((7, 3), (2, 5), (4, 4))
    trace = ponder.tracing(model.spec)
    losses(model, batch, Smoothing(0.0), trace=trace)
    found = ponder.cost(model.spec, trace, batch, ponder.positions(model.spec, [batch]))
    expected = torch.zeros(())
    for side, lengths in (("encoder", (8, 3, 5)), ("decoder", (4, 6, 5))):
        steps, remainder = trace.pondered[(side,)]
        times = [(steps + remainder)[row, place] for row, length in enumerate(lengths) for place in range(length)]
        expected = expected + 0.3 * sum(times) / sum(lengths)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    found.backward()
    assert model.encoder.halting.weight.grad.abs().max() > 0, "the remainder has a gradient"
    assert model.decoder.halting.bias.grad.abs().max() > 0


@pytest.mark.parametrize("halted", [GoesOn(), Stays()])
def test_a_costly_step_is_made_less_often(halted: GoesOn | Stays) -> None:
    means = []
    for cost in (0.0, 1.0):
        model, batch = model_of(Halt(0.9, halted=halted, cost=cost, bias=-1.5)), batch_of((7, 3), (2, 5), (4, 4))
        adam = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(60):
            trace = ponder.tracing(model.spec)
            smoothed, _ = losses(model, batch, Smoothing(0.0), trace=trace)
            adam.zero_grad()
            (smoothed / batch.tokens + ponder.cost(model.spec, trace, batch, ponder.positions(model.spec, [batch]))).backward()
            adam.step()
        tally = ponder.Tally(model.spec)
        with torch.no_grad():
            trace = tally.trace()
            losses(model, batch, Smoothing(0.0), trace=trace)
        tally.add(trace, batch)
        means.append(sum(each["mean"] for each in tally.fields()["ponder"].values()))
    assert means[1] < means[0] - 0.5


def test_who_does_not_halt_ponders_nothing() -> None:
    spec = universal(Joint(23), width=16, hidden=24, heads=2)
    assert ponder.tracing(spec) is None
    assert ponder.positions(spec, [batch_of((2, 2))]) == {}
    assert ponder.Tally(spec).fields() == {}
    assert ponder.collapsed(spec, {"loss": 1.0}) == []


@pytest.mark.parametrize(
    ("bias", "words"), [(50.0, "stop at the first step; a lower"), (-50.0, "stop at the last step; a higher")]
)
def test_halting_that_has_collapsed_is_said(bias: float, words: str) -> None:
    model, batch = model_of(Halt(bias=bias)), batch_of((7, 3), (2, 5))
    tally = ponder.Tally(model.spec)
    with torch.no_grad():
        trace = tally.trace()
        losses(model, batch, Smoothing(0.0), trace=trace)
    tally.add(trace, batch)
    warnings = ponder.collapsed(model.spec, tally.fields())
    assert [words in warning for warning in warnings] == [True, True]
    assert warnings[0].startswith("warning: halting has collapsed: all positions of the encoder")
    assert "encoder.halt.bias" in warnings[0]
    some = {"ponder": {"encoder": {"mean": 1.02, "spread": 0.14, "least": 1, "most": 2}}}
    assert "nearly all positions of the encoder stop at the first step" in ponder.collapsed(model.spec, some)[0]
    spread = {"ponder": {"encoder": {"mean": 2.0, "spread": 1.0, "least": 1, "most": 4}}}
    assert ponder.collapsed(model.spec, spread) == []
    assert ponder.said(spread) == ["encoder ponders 2.00 ± 1.00 steps"]


def test_who_makes_all_steps_may_learn_to_halt() -> None:
    sizes = {"width": 16, "hidden": 24, "heads": 2, "steps": 4, "norm": PreNorm()}
    donor, model = build(universal(Joint(23), **sizes), 5), model_of(Halt())
    mine = model.encoder.halting.weight.clone()
    inherit(model, donor)
    for name, value in donor.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    assert torch.equal(model.encoder.halting.weight, mine)


@pytest.fixture
def finished(tiny: Run, tmp_path: Path) -> Callable[..., Path]:
    """A small universal model, trained for some steps, with changes of its own."""

    def train_with(*changes: str) -> Path:
        run = replace(tiny, model="universal-tiny", changes=("width=16", "*.hidden=24", "*.steps=3", *changes))
        train(run, tmp_path / "run", Listener())
        return tmp_path / "run"

    return train_with


def test_a_run_tells_ponder_times_in_its_journal_and_its_model_word_by_word(finished: Callable[..., Path]) -> None:
    folder = finished("*.halt=Halt(0.9)")
    told = [line["ponder"] for line in journal(folder, "evaluation", "final")]
    assert told
    for each in told:
        assert set(each) == {"encoder", "decoder"}
        assert 1 <= each["encoder"]["least"] <= each["encoder"]["mean"] <= each["encoder"]["most"] <= 3
    model = load(folder, device="cpu")
    found = pondered(model, "ka lo mi", "nu pe")
    assert [each.side for each in found] == ["encoder", "decoder"]
    for each in found:
        assert len(each.pieces) == len(each.steps) > 2
        assert 1 <= min(each.steps) <= max(each.steps) <= 3 == each.most
    picture.draw(found, "ka lo mi", folder / "ponder.png")
    assert (folder / "ponder.png").stat().st_size > 5000
    with pytest.raises(QkvError, match="give a target, too"):
        pondered(model, "ka lo mi")


def test_a_model_that_does_not_halt_has_no_ponder_times(finished: Callable[..., Path]) -> None:
    with pytest.raises(QkvError, match="no position of this model halts by itself"):
        pondered(load(finished(), device="cpu"), "ka lo mi", "nu pe")


def test_places_are_counted_from_a_random_number_in_training_alone() -> None:
    origins = [Noise(1, step, 62).origin for step in range(6000)]
    assert set(origins) == set(range(63))
    for first, last in ((0, 0), (1, 2), (3, 6), (7, 14), (15, 30), (31, 62)):  # six of a kind
        assert sum(first <= origin <= last for origin in origins) == pytest.approx(1000, abs=100)
    assert Noise(1, 5, 300).origin == Noise(1, 5, 300).origin
    assert Noise(1, 5).origin == 0
    batch = batch_of((7, 3), (2, 5))
    for calm in (
        build(universal(Joint(23), width=16, hidden=24, heads=2, dropout=0.0), 3),
        build(transformer(Joint(23), width=16, hidden=24, heads=2, depth=1, dropout=0.0), 3),
    ):
        still = calm.encode(batch.source, sight(batch)).vectors
        torch.testing.assert_close(calm.encode(batch.source, sight(batch), Noise(1, 5)).vectors, still)
        roaming = next(Noise(1, step, 300) for step in range(9) if Noise(1, step, 300).origin)
        assert (calm.encode(batch.source, sight(batch), roaming).vectors - still).abs().max() > 1e-3


def test_places_that_are_spread_stand_in_their_order_and_meet_every_distance() -> None:
    places = torch.arange(42)
    passes = [Noise(1, step, 400, 42).moved(places) for step in range(900)]
    for moved in passes:
        assert (moved.diff() >= 1).all() and moved[0] >= 0 and moved[-1] < 442
    apart = torch.stack(passes)[:, -1] - torch.stack(passes)[:, 0]
    assert (apart == 41).float().mean() == pytest.approx(1 / 3, abs=0.1), "side by side, as texts are read"
    assert (apart > 300).float().mean() > 0.03, "and as far from each other as in a text that is ten times as long"
    assert len({int(each[0]) for each in passes}) > 100
    again = Noise(1, 5, 400, 42)
    assert again.moved(places).equal(passes[5]) and again.moved(places[None, 7:9]).equal(passes[5][None, 7:9])
    assert Noise(1, 5, 400).moved(places).equal(places + Noise(1, 5, 400, 42).origin)


def test_both_sides_of_a_model_are_moved_alike() -> None:
    noise = Noise(1, next(step for step in range(99) if Noise(1, step, 400, 12).moved(torch.arange(12))[-1] > 200), 400, 12)
    moved, x = noise.moved(torch.arange(12)), torch.zeros(1, 12, 16, dtype=torch.float64)
    for position in (Sinusoid(), Learned(412), Factorised((21, 20))):
        places = Places(position, 16)
        trained = trained_vectors(position, 16)
        trained = None if trained is None else torch.nn.init.normal_(trained.data.double())
        known = places(trained, x, Plain(), 0, 412)
        assert known is not None
        torch.testing.assert_close(places(trained, x, Plain(), 0, 12, noise), known[moved])
        torch.testing.assert_close(places(trained, x, Plain(), 3, 5, noise), known[moved[3:8]])
        rows = Placed(torch.tensor([4]), blank=False, pos=torch.tensor([[9, 5, 1, 0]]))
        torch.testing.assert_close(places(trained, x, rows, 0, 4, noise), known[moved[torch.tensor([[9, 5, 1, 0]])]])


def test_sentences_are_the_lines_of_a_text() -> None:
    ids, lengths = by_sentence([[5, 6, 4, 7, 4, 4, 8], [9], [4], [5, 4]], 4)
    none = [-1, -1]
    assert ids.tolist() == [[[5, 6], [7, -1], [8, -1]], [[9, -1], none, none], [none] * 3, [[5, -1], none, none]]
    assert lengths.tolist() == [3, 1, 1, 1]
