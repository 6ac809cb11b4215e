"""Depth as time: the signal, the rules for halting against transcriptions of one position at a time, and what they save."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from qkv.attention.sight import Late, Packed, Padded, Plain, Sight
from qkv.error import QkvError
from qkv.model.attention import Attention
from qkv.model.context import Context, Memory
from qkv.model.feedforward import FeedForward
from qkv.model.position import Signal
from qkv.model.recurrence import Recurrence
from qkv.model.state import State
from qkv.model.trace import Trace
from qkv.model.transformer import DecoderOnly, EncoderOnly, build
from qkv.papers.universal import universal
from qkv.spec import model as spec
from qkv.spec import part
from qkv.spec.halt import AllSteps, Direction, GoesOn, Halt, Halting, Interpolated, Itself, Mean, Probability, Remainder, Stays
from qkv.spec.pattern import Causal, Full
from qkv.spec.position import Coordinates, Learned, LearnedStep, NoPosition, NoSignal, Sinusoid

WIDTH, HEADS, STEPS = 8, 2, 5
OUTPUTS, HALTED, LAST = (Interpolated(), Mean()), (GoesOn(), Stays()), (Probability(), Remainder())
READS = (Itself(), Direction())
RULES = [
    Halt(0.9, output, halted, bias=-0.7, last=last, reads=reads)
    for output, halted, last, reads in product(OUTPUTS, HALTED, LAST, READS)
]
NAMES = [", ".join(type(each).__name__ for each in (rule.output, rule.halted, rule.last, rule.reads)) for rule in RULES]
CLOSE = {"rtol": 0, "atol": 1e-12}


def encoder(halt: Halting, steps: int = STEPS, *, causal: bool = False, convolved: bool = False) -> EncoderOnly | DecoderOnly:
    """A recurrence by itself, in fp64, none of its parameters as it was initialised."""
    pattern = Causal() if causal else Full()
    forward = part.SeparableFeedForward(12, pattern=pattern) if convolved else part.FeedForward(12)
    block = part.Block(part.Attention(HEADS, pattern), forward)
    depth = part.Recurrence(block, steps, halt=halt)
    embedding = spec.Embedding(NoPosition())
    described: spec.Model = spec.EncoderOnly(spec.Joint(11), WIDTH, embedding, depth)
    if causal:
        described = spec.DecoderOnly(spec.Joint(11), WIDTH, embedding, depth)
    made = build(described, 3)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in made.named_parameters():
        if not name.endswith("halting.bias"):
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
        if name.endswith("halting.weight") and isinstance(halt, Halt) and isinstance(halt.reads, Direction):
            # about how long a state is: positions then differ as much as by the state itself
            parameter.data *= 2 * math.sqrt(WIDTH)
    assert isinstance(made, EncoderOnly | DecoderOnly)
    return made.double()


def recurrence_of(model: EncoderOnly | DecoderOnly) -> Recurrence:
    found = model.encoder if isinstance(model, EncoderOnly) else model.decoder
    assert isinstance(found, Recurrence)
    return found


def inputs(rows: int = 3, length: int = 6) -> Tensor:
    return torch.randn(rows, length, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def signal(step: int, place: int) -> Tensor:
    """Equations 6 and 7, one channel at a time; step and place count from 1."""
    found = torch.empty(WIDTH, dtype=torch.float64)
    for channel in range(0, WIDTH, 2):
        rate = 10000 ** (channel / WIDTH)
        found[channel] = math.sin(place / rate) + math.sin(step / rate)
        found[channel + 1] = math.cos(place / rate) + math.cos(step / rate)
    return found


def norm(layer: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(layer, nn.LayerNorm)
    return nn.functional.layer_norm(x, (WIDTH,), layer.weight, layer.bias, layer.eps)


def transcribed(recurrence: Recurrence, states: Tensor, halt: Halt) -> tuple[Tensor, list[int], list[float]]:
    """The listing of appendix C for one text, (T, D), one position at a time, from its words and not from our code: what comes
    out, the steps and the remainders. What others see of a position is the key and value that it showed last."""
    attention, forward = (residual.sublayer for residual in recurrence.block.sublayers)  # pyright: ignore
    norms = [residual.norm for residual in recurrence.block.sublayers]  # pyright: ignore
    assert isinstance(attention, Attention)
    assert isinstance(forward, FeedForward)
    length = len(states)
    state = list(states)
    shown: list[Tensor] = [torch.empty(0)] * length
    halting, remainder, updates = [0.0] * length, [0.0] * length, [0] * length
    output = [torch.zeros(WIDTH, dtype=torch.float64) for _ in range(length)]
    for step in range(1, recurrence.spec.steps + 1):
        if not any(h < halt.threshold for h in halting):
            break
        weights = [0.0] * length
        moved = [s + signal(step, place) for place, s in enumerate(state, 1)]
        running = [h < 1.0 for h in halting]
        for i in range(length):
            if not running[i]:
                continue
            read = moved[i] if isinstance(halt.reads, Itself) else moved[i] / (moved[i] @ moved[i]).sqrt()
            p = torch.sigmoid(recurrence.halting.weight[0] @ read + recurrence.halting.bias[0]).item()  # pyright: ignore
            updates[i] += 1
            ends = step == recurrence.spec.steps and isinstance(halt.last, Remainder)
            if halting[i] + p > halt.threshold or ends:
                remainder[i] += 1 - halting[i]
                weights[i] = remainder[i]
                halting[i] = 1.0
            else:
                halting[i] += p
                weights[i] = p
        moves = [running[i] or isinstance(halt.halted, GoesOn) for i in range(length)]
        for i in range(length):
            if moves[i]:
                shown[i] = attention.qkv.weight @ moved[i]
        new = list(state)
        for i in range(length):
            if not moves[i]:
                continue
            heads = []
            for head in range(HEADS):
                at = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
                query = shown[i][:WIDTH][at]
                scores = torch.stack([query @ shown[j][WIDTH : 2 * WIDTH][at] for j in range(length)]) / math.sqrt(WIDTH / HEADS)
                heads.append(sum(w * shown[j][2 * WIDTH :][at] for j, w in enumerate(scores.softmax(0))))
            a = norm(norms[0], moved[i] + attention.out.weight @ torch.cat(heads))
            hidden = torch.relu(forward.into.weight @ a + forward.into.bias)
            new[i] = norm(norms[1], a + forward.out.weight @ hidden + forward.out.bias)
        state = new
        for i in range(length):
            kept = 1.0 if isinstance(halt.output, Mean) else 1 - weights[i]
            output[i] = weights[i] * state[i] + kept * output[i]
    return torch.stack(output), updates, remainder


@pytest.mark.parametrize("halt", RULES, ids=NAMES)
@pytest.mark.parametrize("training", [True, False], ids=["masked", "leaving"])
def test_every_rule_is_what_the_listing_says_one_position_at_a_time(halt: Halt, training: bool) -> None:
    recurrence, x, trace = recurrence_of(encoder(halt)), inputs(), Trace()
    with torch.set_grad_enabled(training):
        found = recurrence(x, Context(Plain(), trace=trace).at("encoder"))
    pondered = trace.pondered[("encoder",)]
    for row in range(len(x)):
        with torch.no_grad():
            output, steps, remainders = transcribed(recurrence, x[row], halt)
        torch.testing.assert_close(found[row], output, **CLOSE)
        assert pondered.steps[row].tolist() == steps
        assert pondered.remainder[row].tolist() == pytest.approx(remainders, abs=1e-12)
    counts = pondered.steps.flatten().tolist()
    assert len(set(counts)) >= 3, "positions must stop at different steps, or this shows little"
    assert STEPS in counts
    assert min(counts) < STEPS


def test_the_mean_is_that_of_graves_for_positions_that_halt() -> None:
    """Graves 2016, equations 6, 7 and 13: p is h but for the last step, whose p is the remainder 1 - sum of the others."""
    halt = Halt(0.9, Mean(), GoesOn(), bias=0.3)
    recurrence, trace, x = recurrence_of(encoder(halt, 12)), Trace(), inputs(1, 4)
    with torch.no_grad():
        found = recurrence(x, Context(Plain(), trace=trace).at("encoder"))[0]
        states, probabilities, s = [], [], x
        for step in range(12):
            s = s + recurrence.signal(Plain(), 0, 4, s)(step)
            probabilities.append(recurrence._probability(s)[0])
            s = recurrence.block(s, Context(Plain()))
            states.append(s[0])
    for i in range(4):
        h = [p[i].item() for p in probabilities]
        last = next(n for n in range(1, 13) if sum(h[:n]) > 0.9)
        p = [*h[: last - 1], 1 - sum(h[: last - 1])]
        assert sum(p) == pytest.approx(1)
        expected = sum(weight * state[i] for weight, state in zip(p, states, strict=False))
        torch.testing.assert_close(found[i], expected, **CLOSE)
        assert trace.pondered[("encoder",)].steps[0, i] == last
        assert trace.pondered[("encoder",)].remainder[0, i].item() == pytest.approx(p[-1])


@pytest.mark.parametrize("training", [True, False], ids=["masked", "leaving"])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("halted", HALTED)
def test_who_never_halts_before_the_last_step_and_takes_the_remainder_is_one_that_makes_all_steps(
    output: Interpolated | Mean, halted: GoesOn | Stays, training: bool
) -> None:
    halt = Halt(0.9, output, halted, bias=-60.0, last=Remainder())
    recurrence, trace = recurrence_of(encoder(halt)), Trace()
    with torch.set_grad_enabled(training):
        found = recurrence(inputs(), Context(Plain(), trace=trace).at("encoder"))
        recurrence.spec = replace(recurrence.spec, halt=AllSteps())
        torch.testing.assert_close(found, recurrence(inputs(), Context(Plain())), **CLOSE)
    pondered = trace.pondered[("encoder",)]
    assert (pondered.steps == STEPS).all()
    torch.testing.assert_close(pondered.remainder, torch.ones_like(pondered.remainder), **CLOSE)
    if training:
        pondered.remainder.sum().backward()
        assert recurrence.halting.bias.grad != 0, "the cost of pondering reaches who never halted"  # pyright: ignore


@pytest.mark.parametrize("halt", [AllSteps(), *RULES], ids=["all steps", *NAMES])
@pytest.mark.parametrize("convolved", [False, True], ids=["feed-forward", "convolved"])
def test_gradients_are_those_of_finite_differences(halt: Halting, convolved: bool) -> None:
    recurrence = recurrence_of(encoder(halt, 4, convolved=convolved))
    names = [name for name, _ in recurrence.named_parameters()]
    x = inputs(1, 3).requires_grad_()

    def outcome(x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        trace = Trace()
        found = torch.func.functional_call(
            recurrence, dict(zip(names, parameters, strict=True)), (x, Context(Plain(), trace=trace).at("encoder"))
        )
        remainders = [each.remainder for each in trace.pondered.values()]
        return (found, *remainders)

    parameters = [parameter.detach().clone().requires_grad_() for parameter in recurrence.parameters()]
    if isinstance(halt, Halt):
        sums = _distance_to_threshold(recurrence, x.detach(), halt)
        assert sums > 1e-3, "a difference across the threshold would be no derivative"
    assert torch.autograd.gradcheck(outcome, (x, *parameters), eps=1e-6, atol=1e-6, fast_mode=True)


def _distance_to_threshold(recurrence: Recurrence, x: Tensor, halt: Halt) -> float:
    """How near any sum of probabilities comes to the threshold."""
    least, total = math.inf, torch.zeros(x.shape[:2], dtype=torch.float64)
    probability = recurrence._probability

    def watched(moved: Tensor) -> Tensor:
        nonlocal least, total
        p = probability(moved)
        if p.shape == total.shape:
            least = min(least, (total + p - halt.threshold).abs().min().item())
            total = total + p
        return p

    recurrence._probability = watched  # pyright: ignore[reportAttributeAccessIssue]
    recurrence(x, Context(Plain()))
    recurrence._probability = probability  # pyright: ignore[reportAttributeAccessIssue]
    return least


SIGHTS: dict[str, Sight] = {
    "plain": Plain(),
    "padded": Padded(torch.tensor([6, 2, 4])),
    "packed": Packed(
        torch.tensor([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 2], [0] * 6]),
        torch.tensor([[0, 1, 2, 0, 1, 2], [0, 0, 1, 2, 3, 0], [0, 1, 2, 3, 4, 5]]),
    ),
    "late": Late(torch.tensor([0, 4, 2])),
}


@pytest.mark.parametrize("halt", RULES, ids=NAMES)
@pytest.mark.parametrize("sight", SIGHTS.values(), ids=list(SIGHTS))
@pytest.mark.parametrize("convolved", [False, True], ids=["feed-forward", "convolved"])
@pytest.mark.parametrize("causal", [False, True], ids=["encoder", "decoder"])
def test_what_is_left_out_at_inference_changes_nothing(halt: Halt, sight: Sight, convolved: bool, causal: bool) -> None:
    recurrence, x = recurrence_of(encoder(halt, causal=causal, convolved=convolved)), inputs()
    there = sight.present(0, 6)
    there = torch.ones(3, 6, dtype=torch.bool) if there is None else there
    masked = recurrence(x, Context(sight))
    with torch.no_grad():
        torch.testing.assert_close(recurrence(x, Context(sight))[there], masked[there], **CLOSE)


@torch.no_grad()
def test_positions_that_stay_leave_the_work_once_they_have_halted() -> None:
    model = encoder(Halt(0.9, halted=Stays(), bias=-0.7))
    recurrence, trace, worked = recurrence_of(model), Trace(), []
    forward = recurrence.block.sublayers[1].sublayer  # pyright: ignore
    forward.register_forward_pre_hook(lambda _, given: worked.append(given[0].shape[:-1].numel()))
    recurrence(inputs(), Context(Plain(), trace=trace).at("encoder"))
    steps = trace.pondered[("encoder",)].steps
    assert sum(worked) == steps.sum()
    assert worked == [int((steps > step).sum()) for step in range(len(worked))]


@torch.no_grad()
def test_a_pass_ends_when_the_last_position_that_goes_on_has_halted() -> None:
    recurrence, calls = recurrence_of(encoder(Halt(0.9, bias=3.0))), []
    recurrence.block.register_forward_pre_hook(lambda *_: calls.append(1))
    recurrence(inputs(), Context(Plain()))
    assert len(calls) == 1 + int((recurrence._probability(inputs() + recurrence.signal(Plain(), 0, 6, inputs())(0)) <= 0.9).any())
    calls.clear()
    with torch.enable_grad():
        recurrence(inputs(), Context(Plain()))
    assert len(calls) == STEPS, "training makes all steps, so that no two machines disagree"
    calls.clear()
    recurrence(inputs(), Context(Plain(), state=State()))
    assert len(calls) == STEPS, "a later token may yet ask for these keys"


@torch.no_grad()
def test_a_step_makes_the_steps_that_its_tokens_need_and_no_more() -> None:
    model = encoder(Halt(0.9, halted=Stays(), bias=-0.7), causal=True)
    assert isinstance(model, DecoderOnly)
    ids, trace, worked = torch.randint(0, 11, (4, 7), generator=torch.Generator().manual_seed(2)), Trace(), []
    model.decode(ids, Plain(), trace=trace)
    steps = trace.pondered[("decoder",)].steps
    forward = recurrence_of(model).block.sublayers[1].sublayer  # pyright: ignore
    activation = forward._activation
    forward._activation = lambda hidden: worked.append(len(hidden)) or activation(hidden)
    step = model.stepper(Plain(), State())
    for place in range(7):
        worked.clear()
        step(ids[:, place])
        assert sum(worked) == steps[:, place].sum()


@torch.no_grad()
@pytest.mark.parametrize("halt", RULES, ids=NAMES)
def test_ponder_times_are_the_same_with_and_without_gradients_and_padding_has_none(halt: Halt) -> None:
    recurrence, found = recurrence_of(encoder(halt)), []
    sight = Padded(torch.tensor([6, 2, 4]))
    for training in (True, False):
        trace = Trace()
        with torch.set_grad_enabled(training):
            recurrence(inputs(), Context(sight, trace=trace).at("encoder"))
        found.append(trace.pondered[("encoder",)])
    torch.testing.assert_close(found[0].steps, found[1].steps, **CLOSE)
    torch.testing.assert_close(found[0].remainder, found[1].remainder, **CLOSE)
    assert (found[0].steps[1, 2:] == 0).all()
    assert (found[0].steps[1, :2] > 0).all()


def test_the_signal_is_that_of_the_paper_and_the_residual_carries_it() -> None:
    recurrence = recurrence_of(encoder(AllSteps(), 2))
    x = inputs(1, 4)
    signals = recurrence.signal(Plain(), 0, 4, x)
    for step in range(2):
        expected = torch.stack([signal(step + 1, place + 1) for place in range(4)])
        torch.testing.assert_close(signals(step).expand(4, -1), expected, **CLOSE)
    for residual in recurrence.block.sublayers:
        nn.init.zeros_(residual.sublayer.out.weight)  # pyright: ignore
        if residual.sublayer.out.bias is not None:  # pyright: ignore
            nn.init.zeros_(residual.sublayer.out.bias)  # pyright: ignore
    norms = [residual.norm for residual in recurrence.block.sublayers]  # pyright: ignore
    with torch.no_grad():
        state = x
        for step in range(2):
            state = norm(norms[1], norm(norms[0], state + signals(step)))
        torch.testing.assert_close(recurrence(x, Context(Plain())), state, **CLOSE)


def test_trained_signals_have_a_vector_for_each_place_and_step() -> None:
    made = Signal(Coordinates(Learned(5), LearnedStep()), 3, WIDTH)
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    x = torch.zeros(1, 2, WIDTH)
    torch.testing.assert_close(made(Plain(), 3, 2, x)(1), made.places[3:5] + made.steps[1])
    places = torch.tensor([[0, 4], [2, 2]])
    packed = Packed(torch.zeros(2, 2, dtype=torch.int64), places)
    torch.testing.assert_close(made(packed, 0, 2, x)(2), made.places[places] + made.steps[2])
    with pytest.raises(QkvError, match="knows 5 places, and a text has 6"):
        made(Plain(), 4, 2, x)
    assert Signal(NoSignal(), 3, WIDTH)(Plain(), 0, 2, x)(0) is None
    only_steps = Signal(Coordinates(NoPosition(), Sinusoid()), 3, WIDTH)(Plain(), 0, 2, x)(0)
    torch.testing.assert_close(only_steps[0], (signal(1, 0) - signal(0, 0) + torch.tensor([0.0, 1.0]).repeat(WIDTH // 2)).float())


def test_the_memory_is_projected_once_for_all_steps() -> None:
    model = build(universal(spec.Joint(11), width=WIDTH, hidden=12, heads=2, steps=4), 1).double()
    projected = []
    kv = model.decoder.block.sublayers[1].sublayer.kv  # pyright: ignore
    kv.register_forward_hook(lambda *_: projected.append(1))
    source, target = torch.randint(0, 11, (2, 3)), torch.randint(0, 11, (2, 4))
    model(source, Plain(), target)
    assert len(projected) == 1
    memory = Memory(torch.randn(2, 3, WIDTH, dtype=torch.float64), Plain())
    state = State()
    with torch.no_grad():
        step = model.stepper(memory, state)
        step(target[:, 0])
    assert len(projected) == 2
    assert sum(type(slot).__name__ == "Once" for slot in state.slots.values()) == 1


def test_what_is_said_of_a_direction_does_not_depend_on_the_length_of_a_state() -> None:
    for reads in READS:
        probability, x = recurrence_of(encoder(Halt(reads=reads)))._probability, inputs()
        found = probability(x), probability(10 * x)
        assert torch.allclose(*found, rtol=0, atol=1e-12) == isinstance(reads, Direction)
        assert torch.isfinite(probability(torch.zeros_like(x))).all()


def test_halting_begins_where_it_is_told_to() -> None:
    for bias in (-1.0, 1.0, 2.5):
        made = build(universal(spec.Joint(11), width=WIDTH, hidden=12, heads=2, halt=Halt(bias=bias)), 1)
        assert made.encoder.halting.bias.item() == bias  # pyright: ignore
        assert made.decoder.halting.bias.item() == bias  # pyright: ignore


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_threshold_lies_between_0_and_1(threshold: float) -> None:
    with pytest.raises(QkvError, match="threshold lies between 0 and 1"):
        Halt(threshold)


def test_there_is_at_least_one_step_and_no_reward_for_pondering() -> None:
    block = part.Block(part.Attention(2))
    with pytest.raises(QkvError, match=r"Recurrence\.steps must be a whole number of at least 1, not 0"):
        part.Recurrence(block, 0)
    with pytest.raises(QkvError, match="cost is not negative"):
        Halt(cost=-0.1)
    causal = part.Recurrence(part.Block(part.SeparableFeedForward(8)), 2)
    with pytest.raises(QkvError, match="sees the future"):
        spec.DecoderOnly(spec.Joint(11), WIDTH, spec.Embedding(), causal)
    assert replace(causal, steps=3).steps == 3
