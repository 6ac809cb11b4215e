"""Every value of the grammar: written down and read again it is the same, and what makes no sense cannot be made."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import tomli_w

from qkv.error import QkvError
from qkv.papers.catalogue import CATALOGUE, named
from qkv.spec import (
    cell,
    choice,
    data,
    halt,
    law,
    model,
    objective,
    part,
    plain,
    pooling,
    position,
    run,
    score,
    search,
    study,
    world,
)
from qkv.spec.model import Classifier, DecoderOnly, Embedding, EncoderOnly, Joint
from qkv.spec.part import Attention, Block, FeedForward, MemoryAttention, PreNorm, RMSNorm, Stack
from qkv.spec.pattern import Causal, Full, Local, Others, PerHead, SameBlock, Stride, Summary
from qkv.spec.position import Learned, NoPosition, Relative, Rotary

READS, WRITES = Stack(Block(Attention(2)), depth=1), Stack(Block(Attention(2, Causal())), depth=1)
BARE = Embedding(NoPosition(), scale=False)
TEXTS = data.Texts(("a.txt", "b.txt.gz"), data.Paragraphs())
BYTES = data.Bytes(("a.npy",), data.Pictures(8, 8))

# of every value one, with nothing as it is by default
EXAMPLES: list[Any] = [
    *(
        part.ReLU(),
        part.LeakyReLU(),
        part.GELU(),
        part.TanhGELU(),
        part.Swish(),
        part.LayerNorm(),
        part.RMSNorm(),
        part.Even(),
        part.Own(),
    ),
    part.PostNorm(1e-6, RMSNorm()),
    part.PreNorm(1e-7, RMSNorm()),
    Attention(8, Causal(), True, 5, 2, score.Dot(), Rotary(500.0), position.ALiBi(), 4),
    *(part.SigmoidGELU(), part.AsValues(), position.Factorised((2, 3, 4)), model.Reduced(0.2)),
    MemoryAttention(4, True, 3, score.Dot(), choice.Best(2)),
    MemoryAttention(1, maps=part.Unprojected()),
    FeedForward(12, part.Swish(), False, True),
    Block(Attention(8), FeedForward(9), norm=PreNorm(), dropout=0.25),
    Stack(Block(Attention(2)), Block(FeedForward(3)), depth=5, bias=Relative(8, 20, False)),
    part.Recurrent(part.LSTM(), Causal(), pooling.LastToken(), MemoryAttention(2)),
    *(part.GRU(), part.LSTM(), part.Zeros(), part.NoMemory(), part.Tanh(), part.Projected(), part.Unprojected(), cell.Maximum()),
    *(model.Pointing(score.General()), world.Sorting(9, 90), world.ConvexHull(9, 8)),
    *(choice.LocalMonotonic(3), choice.LocalPredictive(4), choice.Sampled()),
    part.SeparableFeedForward(12, 4, 6, part.GELU(), Causal(), False),
    *(halt.AllSteps(), halt.Interpolated(), halt.Mean(), halt.GoesOn(), halt.Stays(), halt.Probability(), halt.Remainder()),
    *(halt.Itself(), halt.Direction()),
    halt.Halt(0.8, halt.Mean(), halt.Stays(), 0.1, 1.0, halt.Remainder(), halt.Itself()),
    part.Recurrence(Block(Attention(2), norm=PreNorm()), 5, position.NoSignal(), halt.Halt(bias=1.0)),
    *(cell.Dense(False), cell.Gate(False), cell.Convolution(3, 2, Causal(), False), cell.Separable(5, Causal(), False)),
    *(cell.Depthwise(3, Causal()), cell.Lightweight(7, 4, Causal()), cell.Identity(), cell.Dead(), cell.AsInput()),
    *(cell.NoActivation(), cell.Add(), cell.Multiply(), cell.Concatenate(), cell.Branch(0, cell.Dense(), 0.5, True, part.ReLU())),
    cell.Node(cell.Branch(norm=True), cell.Branch(0, cell.Gate(), 2.0, True), cell.Multiply(), True),
    cell.Cell(cell.Node(cell.Branch()), cell.Node(cell.Branch(1), cell.Branch(0)), norm=PreNorm(1e-6), dropout=0.25),
    *(position.Coordinates(Learned(9), position.LearnedStep()), position.LearnedStep(), position.NoSignal()),
    *(Full(), Causal(), Local(4), Stride(5), SameBlock(6), Summary(8, 2, 1), Others(), score.Dot(), score.ScaledDot()),
    *(score.General(), score.ContentBased(3.0, True), score.Additive(), score.Location(9), score.Constant()),
    *(choice.Soft(), choice.Best(3), choice.StraightThrough()),
    *(score.Gaussian(0.5, True), score.Boxcar(2.0), score.Triangular(3.0, True)),
    *(Causal() & Local(4), Local(4) | Stride(5), PerHead(Local(3), Causal() & SameBlock(4))),
    *(position.Sinusoid(50.0), Learned(512), NoPosition(), Rotary(20.0), position.NoRotation(), position.ALiBi()),
    *(position.ALiBi((0.0, 0.5)), position.Geometric()),
    *(Relative(16, 64, False), position.NoBias()),
    *(model.NoNorm(), model.Normed(1e-12), model.Straight(), model.Transform(part.GELU(), 1e-12)),
    Embedding(Learned(7), False, 0.1, model.Normed(), 2),
    *(model.Tokens(), model.Sentences(12, model.FromTheEnd(0.1), 21), model.FromTheStart(), model.FromTheEnd()),
    model.AllSentences(),
    *(model.Mapped(), model.Spelled(((1,), (2, 3)))),
    model.Output(model.Transform(part.ReLU()), True, True),
    *(
        model.Glorot(),
        model.Likeness(),
        model.Likeness(model.Orthogonal(8.0, 1.0), 2),
        model.AllHeads(),
        model.Orthogonal(),
        model.Normal(0.1, False),
        model.FanIn(),
    ),
    *(model.AllThree(), model.SourceAndTarget(), model.TargetAndOutput(), model.Tied(), model.Untied()),
    *(Joint(100), model.Separate(50, 60), pooling.FirstToken(), pooling.MeanToken(), pooling.LastToken()),
    named("t5-tiny", model.Separate(50, 60)),
    DecoderOnly(Joint(9), 4, BARE, WRITES, model.Untied(), model.Output(offset=True), model.FanIn()),
    EncoderOnly(Joint(9), 4, BARE, READS, model.Untied(), model.Output(scaled=True), model.Glorot()),
    Classifier(Joint(9), 4, BARE, READS, ("a", "b"), pooling.FirstToken(), 0.3, model.Glorot()),
    Classifier(Joint(9), 4, Embedding(unit=model.Sentences(9)), READS, ("a", "b"), pooling.LastToken()),
    *(data.AtMost(9), data.Exactly(8), data.Tokenizer("bytes", data.Exactly(300), False, ("<mask>", "<extra_0>"))),
    data.Files(("a", "b"), ("c", "d")),
    data.Pairs(("t.tsv",), ("en", "de")),
    *(data.Whole(), data.Lines(), data.Paragraphs(), TEXTS, data.Labelled(("t.jsonl",), ("2", "1")), data.HeldOut(0.2)),
    *(data.OfRun(), data.HeldOut(0.2, 3)),
    data.Stories(("qa1.txt", "qa2.txt.gz")),
    *(data.AsTheyAre(), data.Pictures(28, 20, 3), data.Sounds(8000), data.Bytes(("a.wav", "b"), data.Sounds(16000))),
    *(world.Copy(9), world.Reverse(8), world.Double(7), world.Addition(12), world.AddProgram(4)),
    *(world.Program(3, 4), world.Control(1, 2), world.Drawn(world.Reverse(6), 50, 2)),
    *(objective.Translate(0.1), objective.Generate(), objective.MaskedWords(0.2, 0.7, 0.2), objective.Spans(0.3, 2.0)),
    *(objective.Infill(0.2, 2.0, False), objective.Delete(0.2), objective.Rotate(), objective.Classify(pooling.FirstToken())),
    *(run.Adam(0.8, 0.9, 1e-8, 0.1), run.Noam(10, 0.5), run.Cosine(0.1, 3, 0.2), run.Batching(5, 6), run.NoClip(), run.Clip(0.5)),
    *(run.Steps(7), run.Epochs(8), run.Minutes(2.5, 30, 4), run.ToTheEnd(), run.Patience(3), run.Evaluation(5, 6, "none")),
    *(run.Checkpoints(3, 9, data.Exactly(4)), run.Scratch(), run.From("/a/run")),
    *(search.Hurdles((5, 6), 7), search.NoHurdles(8), search.Tournament(9, 4), search.AtRandom(), search.AnyNumber()),
    search.Between(5, 6),
    search.Search(
        run.Run("m", TEXTS, objective=objective.Generate()),
        *(search.NoHurdles(9), search.AtRandom(), 0.5, search.Between(1, 9), 7, 8, 2.5, 3),
    ),
    *(law.WithEmbeddings(), law.WithoutEmbeddings(), law.SixND(), law.Counted((1e6, 2e6), (1.2, 1.1))),
    *(
        law.NoFloor(),
        law.Floor(1.7),
        law.FittedFloor(),
        law.Huber(0.01),
        law.Projection(),
        law.Parametric(law.Projection()),
        law.OfBoth(law.Huber(0.1)),
    ),
    *(
        law.OfParameters(law.Floor(0.5)),
        law.OfTokens(law.FittedFloor()),
        law.OfFlops(law.Floor(2.0)),
        law.IsoFlops(law.FittedFloor()),
    ),
    *(law.Resamples(99), law.Subsamples(50, 0.7), law.Surface(1.69, 406.4, 410.7, 0.34, 0.28), law.Line(0.0, 8.8e13, 0.076)),
    law.Coupled(6.4e13, 1.8e13, 0.076, 0.103),
    law.Valley(0.5, 0.45, 0.3, 0.55, 1.6, 1e20, 0.06),
    *(study.Predictions(9.5), study.Operations(1e12), study.About(7), study.OnValidation(), study.Unjudged()),
    *(study.Counts((1e6, 2e6)), study.Ratios((3.0,)), study.Evenly(), study.Apart(2.5)),
    study.Contender("one", run.Run("m", TEXTS, objective=objective.Generate())),
    study.Ladder(
        (study.Contender("one", run.Run("m", TEXTS, objective=objective.Generate())),),
        *(study.Operations(1e9), 3, 9.5, study.Counts((2.0, 3.5)), 4, study.Apart(3.0)),
    ),
    study.Comparison(
        (study.Contender("one", run.Run("m", TEXTS, objective=objective.Generate())),),
        *(study.Operations(1e9), study.About(9), (3, 4), TEXTS),
    ),
    run.Run(
        "bert-tiny",
        TEXTS,
        data.HeldOut(0.2),
        objective.MaskedWords(),
        run.From("/a/run"),
        ("width=8", "*.dropout=0.0"),
        smoothing=0.0,
        longest=40,
        roaming=300,
        spread=True,
        precision="bf16",
        device="cpu",
        seed=9,
    ),
]
each = pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: type(value).__name__)


def test_there_is_an_example_of_every_value() -> None:
    assert {type(value).__name__ for value in EXAMPLES} == set(plain.VALUES)


@each
def test_a_value_survives_json_and_toml(value: Any) -> None:
    written = plain.to_plain(value)
    assert list(written) == [type(value).__name__]
    for again in (json.loads(json.dumps(written)), tomllib.loads(tomli_w.dumps(written))):
        found = plain.from_plain(again)
        assert found == value and type(found) is type(value) and hash(found) == hash(value)
        for field in fields(value):
            assert type(getattr(found, field.name)) is type(getattr(value, field.name))


def said(value: Any) -> str:
    """A value as a person writes it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(said, value))}]"
    if not hasattr(value, "__dataclass_fields__"):
        return str(value).lower() if isinstance(value, bool) else repr(value)
    named = [(field.name, getattr(value, field.name)) for field in fields(value)]
    row = [said(item) for item in named.pop(0)[1]] if isinstance(value, plain.ROWS) else []
    return f"{type(value).__name__}({', '.join([*row, *(f'{name}={said(held)}' for name, held in named)])})"


@each
def test_a_value_is_read_as_a_person_writes_it(value: Any) -> None:
    assert plain.parse(said(value)) == value


@pytest.mark.parametrize(
    ("name", "setting", "place", "value"),
    [
        ("gpt-tiny", "embedding.position=NoPosition()", lambda s: s.embedding.position, NoPosition()),
        ("gpt-tiny", "embedding.position.longest=9", lambda s: s.embedding.position, Learned(9)),
        ("gpt-tiny", "*.rotate=Rotary()", lambda s: s.decoder.blocks[0].sublayers[0].rotate, Rotary()),
        (
            "gpt-tiny",
            "decoder.blocks.0.sublayers.0.bias=ALiBi()",
            lambda s: s.decoder.blocks[0].sublayers[0].bias,
            position.ALiBi(),
        ),
        ("gpt-tiny", "*.kv_heads=2", lambda s: s.decoder.blocks[0].sublayers[0].kv_heads, 2),
        ("gpt-tiny", "tie=Untied()", lambda s: s.tie, model.Untied()),
        ("gpt-tiny", "decoder.bias=Relative(8,16,false)", lambda s: s.decoder.bias, Relative(8, 16, False)),
        ("bert-tiny", "embedding.norm=NoNorm()", lambda s: s.embedding.norm, model.NoNorm()),
        ("bert-tiny", "embedding.segments=0", lambda s: s.embedding.segments, 0),
        ("bert-tiny", "output.transform=Straight()", lambda s: s.output.transform, model.Straight()),
        ("bert-tiny", "*.by=RMSNorm()", lambda s: s.encoder.blocks[0].norm.by, RMSNorm()),
        ("t5-tiny", "*.gated=true", lambda s: s.decoder.blocks[0].sublayers[2].gated, True),
        ("t5-tiny", "*.score=ScaledDot()", lambda s: s.decoder.blocks[0].sublayers[1].score, score.ScaledDot()),
        ("t5-tiny", "encoder.bias.buckets=16", lambda s: s.encoder.bias, Relative(16, 128)),
        ("t5-tiny", "initial=Normal(0.1, shrink=false)", lambda s: s.initial, model.Normal(0.1, False)),
        ("bart-tiny", "output.offset=false", lambda s: s.output.offset, False),
    ],
)
def test_a_setting_reaches_its_place(name: str, setting: str, place: Callable[[Any], Any], value: Any) -> None:
    spec = named(name, Joint(100))
    assert place(spec) != value, "or the setting would change nothing"
    changed = plain.change(spec, setting)
    assert place(changed) == value and type(place(changed)) is type(value)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: Learned(0), "Learned.longest must be a whole number of at least 1, not 0"),
        (lambda: Learned(2.0), "Learned.longest"),  # type: ignore[arg-type]
        (lambda: Learned(True), "Learned.longest"),
        (lambda: search.Hurdles(()), "Hurdles.steps are numbers of steps, one for each stage"),
        (lambda: search.Hurdles((5, 0)), "Hurdles.steps are numbers of steps"),
        (lambda: search.Hurdles(children=0), "Hurdles.children must be a whole number of at least 1"),
        (lambda: search.NoHurdles(0), "NoHurdles.steps must be a whole number of at least 1"),
        (lambda: search.Tournament(3, 4), "Tournament.population must be a whole number of at least 4, not 3"),
        (lambda: search.Between(9, 8), "Between.most must be a whole number of at least 9, not 8"),
        (
            lambda: search.Search(run.Run("m", TEXTS, objective=objective.Generate()), mutation=0),
            "Search.mutation is a probability",
        ),
        (lambda: cell.Branch(-1), "Branch.input is 0, the input of the cell, or the number of a node, not -1"),
        (lambda: cell.Branch(0, cell.Identity(), 2.0), r"Identity\(\) keeps the width of what comes in"),
        (lambda: cell.Branch(0, cell.Dead(), norm=True), r"Dead\(\) is no branch at all: it has no input, no width, no norm"),
        (lambda: cell.Branch(0, cell.Dense(), 0.0), "Branch.width is a multiple of the model's, more than 0, not 0.0"),
        (lambda: cell.Convolution(0), "Convolution.reach must be a whole number of at least 1, not 0"),
        (lambda: cell.Lightweight(3, 0), "Lightweight.shared must be"),
        (lambda: cell.Node(cell.Branch(layer=cell.Dead())), "two branches, of which one at most is Dead"),
        (lambda: cell.Node(cell.Branch(norm=True), cell.Branch(), shared=True), "branches that share a norm both have one"),
        (lambda: cell.Cell(), "a Cell needs at least one Node"),
        (lambda: cell.Cell(cell.Node(cell.Branch(1))), "node 1 takes the result of node 1, which is not made before it"),
        (
            lambda: cell.Cell(cell.Node(cell.Branch(0, cell.Dense(), 0.3))).widths(16),
            "0.3 times the width of 16 has no whole number",
        ),
        (
            lambda: cell.Cell(cell.Node(cell.Branch(0, cell.Lightweight(3, 3)))).widths(16),
            "among 3 channels, and cannot among 16",
        ),
        (lambda: cell.Cell(cell.Node(cell.Branch(0, Attention(3)))).widths(16), "a width of 16 cannot be shared by 3 heads"),
        (lambda: Rotary(0.0), "Rotary.base must be more than 0, such as 10000, not 0.0"),
        (lambda: Relative(2, 128), "Relative needs some buckets and a distance beyond the 0 exact ones"),
        (lambda: Relative(32, 8), "beyond the 8 exact ones"),
        (lambda: Attention(8, kv_heads=3), "3 heads of keys and values cannot serve 8 heads evenly"),
        (lambda: Attention(8, kv_heads=0), "Attention.kv_heads must be a whole number of at least 1"),
        (lambda: Attention(8, kv_heads=16), "16 heads of keys and values cannot serve 8"),
        (lambda: Attention(8, head_width=0), "Attention.head_width must be"),
        (lambda: MemoryAttention(8, head_width=-1), "MemoryAttention.head_width must be"),
        (lambda: MemoryAttention(0), "MemoryAttention.heads must be"),
        (lambda: Embedding(dropout=1.0), "Embedding.dropout is a probability below 1, not 1.0"),
        (lambda: Embedding(dropout=-0.1), "Embedding.dropout"),
        (lambda: Embedding(segments=-1), "Embedding.segments is a number of parts of an input, 0 where it has none, not -1"),
        (lambda: model.Normal(-0.1), "Normal.deviation is not negative: -0.1"),
        (
            lambda: Stack(Block(Attention(2)), Block(Attention(4)), depth=2, bias=Relative()),
            r"blocks that share Relative\(.*\) need equally many heads each, not \[2, 4\]",
        ),
        (lambda: Stack(Block(FeedForward(2)), depth=2, bias=Relative()), r"need equally many heads each, not \[\]"),
        (
            lambda: DecoderOnly(Joint(9), 4, BARE, READS),
            r"Full\(\) sees the future, in a decoder that is to predict it: use Causal",
        ),
        (
            lambda: DecoderOnly(Joint(9), 4, BARE, Stack(Block(MemoryAttention(2)), depth=1)),
            "MemoryAttention stands in the decoder of a model without an encoder, where there is no memory",
        ),
        (
            lambda: EncoderOnly(Joint(9), 4, BARE, Stack(Block(MemoryAttention(2)), depth=1)),
            "MemoryAttention stands in the encoder",
        ),
        (lambda: EncoderOnly(Joint(9), 5, BARE, READS), "a width of 5 cannot be shared by 2 heads"),
        (lambda: EncoderOnly(Joint(9), 0, BARE, READS), "a model has a width of at least 1, not 0"),
        (lambda: DecoderOnly(Joint(9), -4, BARE, WRITES), "a width of at least 1, not -4"),
        (
            lambda: EncoderOnly(Joint(9), 6, BARE, Stack(Block(Attention(2, rotate=Rotary())), depth=1)),
            r"Rotary\(\) turns pairs of channels, but a head has 3",
        ),
        (lambda: Classifier(Joint(9), 4, BARE, READS, ("a",)), r"at least two labels, all different, not \('a',\)"),
        (lambda: Classifier(Joint(9), 4, BARE, READS, ("a", "b", "a")), "at least two labels, all different"),
        (lambda: Classifier(Joint(9), 4, BARE, READS, ("a", "b"), dropout=1.0), "Classifier.dropout is a probability below 1"),
        (lambda: part.Recurrence(Block(Attention(2)), 0), "Recurrence.steps must be a whole number of at least 1, not 0"),
        (
            lambda: part.Recurrence(Block(part.Recurrent()), 2, halt=halt.Halt()),
            r"a Recurrent hands its state through all of them: use AllSteps\(\)",
        ),
        (lambda: part.Recurrent(pattern=Full(), asks=MemoryAttention(1)), r"asks a memory is part of a decoder: .*Causal\(\)"),
        (
            lambda: DecoderOnly(Joint(9), 4, BARE, Stack(Block(part.Recurrent(start=pooling.LastToken())), depth=1)),
            "Recurrent stands in the decoder of a model without an encoder, where there is no memory",
        ),
        (
            lambda: DecoderOnly(Joint(9), 4, BARE, Stack(Block(part.Recurrent(pattern=Full())), depth=1)),
            r"Full\(\) sees the future",
        ),
        (lambda: EncoderOnly(Joint(9), 5, BARE, Stack(Block(part.Recurrent(pattern=Full())), depth=1)), "5 channels have none"),
        (lambda: MemoryAttention(1, offset=True, maps=part.Unprojected()), r"Unprojected\(\) attention has no maps"),
        (
            lambda: cell.branch_width(cell.Branch(0, MemoryAttention(1, maps=part.Unprojected()), 2.0), 4, 4),
            "takes 4 channels and gives as many back, not 4 and 8",
        ),
        (lambda: Attention(1, choice=choice.LocalMonotonic()), r"LocalMonotonic\(reach=10\) says where in a source to look"),
        (lambda: choice.LocalPredictive(0), "LocalPredictive.reach must be a whole number of places of at least 1, not 0"),
        (lambda: part.SeparableFeedForward(8, first=0), "SeparableFeedForward.first must be a whole number of at least 1"),
        (lambda: halt.Halt(1.0), "Halt.threshold lies between 0 and 1, such as 0.99, not 1.0"),
        (lambda: position.ALiBi((0.5, -1.0)), "ALiBi.slopes are numbers of at least 0"),
        (lambda: position.ALiBi((0.5, float("inf"))), "ALiBi.slopes are numbers of at least 0"),
        (lambda: position.ALiBi(()), "ALiBi.slopes are numbers of at least 0"),
        (lambda: Attention(3, bias=position.ALiBi((0.0, 0.5))), "has 2 slopes, but there are 3 heads"),
        (lambda: model.Sentences(0), "Sentences.longest must be a whole number of at least 1"),
        (lambda: model.Sentences(recent=0), "Sentences.recent must be a whole number of at least 1"),
        (lambda: EncoderOnly(Joint(9), 4, Embedding(unit=model.Sentences()), READS), r"Sentences\(.*\) is for a Classifier"),
        (lambda: run.Run("m", data.Files(("a",), ("b",)), roaming=-1), "roaming is a number of places"),
        (
            lambda: run.Run("m", data.Stories(("a",)), objective=objective.Classify(), roaming=9),
            r"roaming is for texts of tokens: what moves the places of a story is FromTheEnd\(gaps=0.1\)",
        ),
        (lambda: data.Stories(()), "Stories.files must be a tuple of names, at least one"),
        (lambda: data.Texts(()), "Texts.files must be a tuple of names, at least one"),
        (lambda: data.Texts("a.txt"), "Texts.files must be a tuple of names"),  # type: ignore[arg-type]
        (lambda: data.Labelled((), ("a", "b")), "Labelled.files must be a tuple of names, at least one"),
        (lambda: data.Labelled(("t.tsv",), ("a", "a")), "Labelled.fields must be two different fields, the text and the label"),
        (lambda: data.Tokenizer(extra=("a", "a")), "Tokenizer.extra must be different names"),
        (lambda: data.Tokenizer(extra=("",)), "Tokenizer.extra must be different names"),
        (lambda: run.Adam(beta2=1.0), "Adam.beta2 is a share of at least 0 and below 1, not 1.0"),
        (lambda: run.Adam(decay=-0.1), "Adam.decay is a number of at least 0, not -0.1"),
        (lambda: run.Adam(epsilon=0.0), "Adam.epsilon must be more than 0"),
        (lambda: run.Clip(0.0), "Clip.norm must be more than 0"),
        (lambda: run.Cosine(peak=-1.0), "a learning rate is not negative"),
        (lambda: run.Patience(0), "Patience.evaluations must be more than 0"),
        (lambda: run.Evaluation(sentences=-1), "Evaluation.sentences must be more than -1"),
        (lambda: run.Run("m", TEXTS), r"Translate\(.*\) learns from Files or Pairs or Drawn, not from Texts"),
        (lambda: run.Run("m", TEXTS, objective=objective.Classify()), "learns from Labelled or Stories, not from Texts"),
        (
            lambda: run.Run("m", TEXTS, data.Files(("a",), ("b",)), objective=objective.Generate()),
            r"Generate\(\) learns from Texts or Bytes, not from Files",
        ),
        (lambda: data.Bytes(()), "Bytes.files must be a tuple of names, at least one"),
        (lambda: data.Pictures(0, 8), "Pictures.height must be a whole number of at least 1, not 0"),
        (lambda: data.Pictures(8, 8, 4), "Pictures.channels is 1 for grey and 3 for colour, not 4"),
        (lambda: data.Sounds(0), "Sounds.rate must be a whole number of at least 1, not 0"),
        (
            lambda: run.Run("m", BYTES, data.Bytes(("b",), data.Pictures(8, 9)), objective=objective.Generate()),
            r"is validated on what has the same form, not on Bytes\(.*Pictures\(height=8, width=9",
        ),
        (lambda: law.Counted((2e6, 1e6), (1.0, 1.0)), "a ratio for each size, the sizes rising"),
        (lambda: law.Counted((1e6,), ()), "a ratio for each size"),
        (lambda: law.Floor(0.0), r"Floor.nats is a loss of more than 0, not 0.0; without a floor say NoFloor\(\)"),
        (lambda: law.Huber(0.0), "Huber.delta is a log loss of more than 0, not 0.0"),
        (lambda: law.Resamples(19), "Resamples.draws must be a whole number of at least 20, not 19"),
        (lambda: law.Subsamples(10), "Subsamples.draws must be a whole number of at least 20"),
        (lambda: law.Subsamples(share=1.0), "Subsamples.share lies between 0 and 1, not 1.0"),
        (lambda: run.Run("m", BYTES, TEXTS, objective=objective.Generate()), "is validated on what has the same form"),
        (lambda: run.Run("m", TEXTS, BYTES, objective=objective.Generate()), "is validated on what has the same form"),
    ],
)
def test_a_value_that_makes_no_sense_cannot_be_made(wrong: Callable[[], object], words: str) -> None:
    with pytest.raises(QkvError, match=words):
        wrong()


def test_a_value_of_another_kind_cannot_take_a_place() -> None:
    spec = named("gpt-tiny", Joint(100))
    for setting in (
        "decoder.blocks.0.sublayers.0.bias=Relative()",  # which a stack shares
        "decoder.bias=ALiBi()",  # which an attention has by itself
        "embedding.position=Rotary()",
        "tie=AllThree()",
        "vocabulary=Separate(50,60)",
        "decoder.blocks.0.sublayers.0.pattern=Full()",
        "decoder.blocks.0.sublayers.0.head_width=Own()",
    ):
        with pytest.raises(QkvError):
            plain.change(spec, setting)


def test_there_are_no_two_entries_of_one_kind_and_size() -> None:
    made = [named(name, Joint(100)) for name in CATALOGUE]
    assert len(made) == 43 and len(set(made)) == 43
    assert {type(spec).__name__ for spec in made} == {"EncoderDecoder", "DecoderOnly", "EncoderOnly"}
