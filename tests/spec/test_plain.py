"""Values written down and read again are the same values, and what is written wrongly is answered in words."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from qkv.error import QkvError
from qkv.papers.catalogue import CATALOGUE, named
from qkv.spec import plain
from qkv.spec.data import AtMost, Exactly, Files, HeldOut, Pairs, Tokenizer
from qkv.spec.model import EncoderDecoder, Joint, Separate, TargetAndOutput, Untied
from qkv.spec.part import Attention, Block, FeedForward, PostNorm, PreNorm, Stack
from qkv.spec.pattern import Causal, Full
from qkv.spec.run import (
    Adam,
    Batching,
    Checkpoints,
    Clip,
    Cosine,
    Epochs,
    Evaluation,
    Minutes,
    Noam,
    NoClip,
    Patience,
    Run,
    Steps,
    ToTheEnd,
)

SPECS = {f"{name} joint": CATALOGUE[name].make(Joint(100)) for name in CATALOGUE}
SPECS |= {f"{name} separate": CATALOGUE[name].make(Separate(50, 60)) for name in CATALOGUE if not name.startswith("pointer")}

runs = st.builds(
    Run,
    model=st.sampled_from(sorted(CATALOGUE)),
    train=st.sampled_from([Files(("a.en", "b.en"), ("a.de", "b.de")), Pairs(("t.tsv",), ("1", "2"))]),
    valid=st.sampled_from([HeldOut(0.02), Files(("v.en",), ("v.de",))]),
    changes=st.sampled_from([(), ("width=64",), ("encoder.depth=3", "decoder.blocks.0.norm=PreNorm()")]),
    tokenizer=st.sampled_from([Tokenizer(), Tokenizer("unigram", Exactly(300), joint=False), Tokenizer("bytes", AtMost(1000))]),
    batching=st.builds(Batching, tokens=st.integers(1, 10**5), accumulate=st.integers(1, 9)),
    optimiser=st.builds(Adam, epsilon=st.floats(1e-12, 1e-6)),
    schedule=st.one_of(st.builds(Noam, warmup=st.integers(1, 9999)), st.builds(Cosine, peak=st.floats(1e-6, 1.0))),
    smoothing=st.floats(0, 0.99),
    clip=st.sampled_from([NoClip(), Clip(0.5)]),
    budget=st.sampled_from([Steps(1000), Epochs(3), Minutes(0.5), Minutes(10)]),
    stopping=st.sampled_from([ToTheEnd(), Patience(3)]),
    evaluation=st.builds(Evaluation, every=st.integers(1, 10**6)),
    checkpoints=st.just(Checkpoints(100, 9, AtMost(4))),
    seed=st.integers(0, 2**31),
)


def through_json(value: Any) -> Any:
    return plain.from_plain(json.loads(json.dumps(plain.to_plain(value))))


def through_toml(value: Any) -> Any:
    return plain.from_plain(tomllib.loads(tomli_w.dumps(plain.to_plain(value))))


@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
@pytest.mark.parametrize("through", [through_json, through_toml])
def test_every_model_of_the_catalogue_survives(spec: EncoderDecoder, through: Any) -> None:
    assert through(spec) == spec
    assert hash(through(spec)) == hash(spec)


@given(run=runs)
def test_every_run_survives(run: Run) -> None:
    assert through_json(run) == run
    assert through_toml(run) == run


@given(run=runs)
def test_numbers_keep_their_kinds(run: Run) -> None:
    again = through_toml(run)
    for field in dataclasses.fields(run):
        assert type(getattr(again, field.name)) is type(getattr(run, field.name))
    assert type(again.batching.tokens) is int and type(again.smoothing) is type(run.smoothing)


def test_a_value_is_written_as_itself() -> None:
    assert plain.to_plain(PreNorm(1e-6)) == {"PreNorm": {"epsilon": 1e-6, "by": {"LayerNorm": {}}}}
    assert plain.to_plain(Stack(Block(FeedForward(8)), depth=2))["Stack"]["depth"] == 2
    assert plain.from_plain({"Attention": {"heads": 8}}) == Attention(8, Full(), False)


@pytest.mark.parametrize(
    ("setting", "place", "value"),
    [
        ("width=64", lambda s: s.width, 64),
        ("encoder.depth=3", lambda s: s.encoder.depth, 3),
        (" decoder.blocks.0.norm = PreNorm() ", lambda s: s.decoder.blocks[0].norm, PreNorm()),
        ("encoder.blocks.0.norm=PreNorm(1e-6)", lambda s: s.encoder.blocks[0].norm, PreNorm(1e-6)),
        ("encoder.blocks.0.norm.epsilon=1e-3", lambda s: s.encoder.blocks[0].norm, PostNorm(1e-3)),
        ("encoder.blocks.0.dropout=0", lambda s: s.encoder.blocks[0].dropout, 0.0),
        ("encoder.blocks.0.sublayers.0.offset=true", lambda s: s.encoder.blocks[0].sublayers[0].offset, True),
        ("encoder.blocks.0.sublayers.0.pattern=Causal()", lambda s: s.encoder.blocks[0].sublayers[0].pattern, Causal()),
        ("tie=Untied()", lambda s: s.tie, Untied()),
        ("embedding.scale=false", lambda s: s.embedding.scale, False),
        (
            "encoder=Stack(Block(Attention(2), FeedForward(8)), depth=1)",
            lambda s: s.encoder,
            Stack(Block(Attention(2), FeedForward(8)), depth=1),
        ),
        ("encoder.blocks=[Block(Attention(2)), Block(FeedForward(4))]", lambda s: len(s.encoder.blocks), 2),
    ],
)
def test_a_change_changes_its_place_and_nothing_else(setting: str, place: Any, value: Any) -> None:
    spec = named("transformer-base", Joint(100))
    changed = plain.change(spec, setting)
    assert place(changed) == value and type(place(changed)) is type(value)
    assert place(spec) != value, "or the change would change nothing"
    name = setting.strip().partition("=")[0].split(".")[0].strip()
    for field in dataclasses.fields(spec):
        if field.name != name:
            assert getattr(changed, field.name) == getattr(spec, field.name)


def test_a_run_is_changed_in_the_same_words() -> None:
    run = Run("transformer-tiny", Files(("a",), ("b",)))
    assert plain.change(run, "budget=Minutes(2.5)").budget == Minutes(2.5)
    assert plain.change(run, 'evaluation=Evaluation(500,300,"none")').evaluation == Evaluation(500, 300, "none")
    assert plain.change(run, "schedule=Cosine(peak=0.003,warmup=1000)").schedule == Cosine(0.003, 1000)
    assert plain.change(run, "precision=bf16").precision == "bf16"
    assert plain.change(run, "train=Files(['c'], ['d'])").train == Files(("c",), ("d",))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("widht=64", "did you mean 'width'"),
        ("encoder.blocks.0.nrom=PreNorm()", "did you mean 'norm'"),
        ("encoder.blocks.0.norm=PerNorm()", "did you mean 'PreNorm'"),
        ("encoder.blocks.0.norm=PreNorm(epsilom=1)", "did you mean 'epsilon'"),
        ("encoder.blocks.1.dropout=0", "'1' is not one of the places 0 to 0"),
        ("encoder.blocks.norm=PreNorm()", "'norm' is not one of the places"),
        ("width.x=3", "there is nothing named 'x' inside 512"),
        ("width=wide", "'wide' cannot take its place"),
        ("width=1.5", "1.5 cannot take its place"),
        ("width=true", "True cannot take its place"),
        ("embedding.scale=1", "1 cannot take its place"),
        ("encoder=3", "3 cannot take its place"),
        ("width", "a change is written as place=value"),
        ("=3", "a change is written as place=value"),
        ("width=511", "cannot be shared by 8 heads"),
        ("encoder.depth=0", "at least 1"),
        ("encoder.blocks.0.dropout=1.5", "probability below 1"),
        ("encoder.blocks.0.sublayers.0.heads=-8", "at least 1"),
        ("encoder=Stack(depth=2)", "at least one Block"),
        ("encoder=Stack(Block(Attention(8)))", "depth"),
        ("encoder.blocks.0.norm=PreNorm(1e-6, 3)", "PreNorm"),
        ("encoder.blocks.0.norm=PreNorm(1e-6, epsilon=1e-5)", "epsilon"),
        ("encoder.blocks.0.sublayers=[MemoryAttention(8)]", "MemoryAttention stands in the encoder"),
    ],
)
def test_a_wrong_change_is_refused_with_what_to_do(setting: str, words: str) -> None:
    with pytest.raises(QkvError) as refused:
        plain.change(named("transformer-base", Joint(100)), setting)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "setting",
    [
        "encoder.blocks.0.norm=ReLU()",
        "encoder.blocks.0.norm=Attention(8)",
        "tie=PreNorm()",
        "encoder.blocks.0.sublayers.0.pattern=Joint(100)",
        "encoder=Block(Attention(8))",
        "encoder.blocks=[Attention(8)]",
        "encoder.blocks=[1, 2]",
    ],
)
def test_a_value_of_another_kind_cannot_take_a_place(setting: str) -> None:
    with pytest.raises(QkvError):
        plain.change(named("transformer-base", Joint(100)), setting)


@pytest.mark.parametrize(
    "written",
    [
        {"PerNorm": {}},
        {"PreNorm": {"epsilom": 1e-5}},
        {"PreNorm": {}, "PostNorm": {}},
        {},
        {"PreNorm": 3},
        {"Stack": {"blocks": []}},
        {"Stack": {"depth": 2}},
        {"Stack": {"blocks": [{"Block": {"sublayers": [{"Attention": {"heads": 8}}]}}]}},
        {"Block": {"sublayers": 3}},
        {"Block": {"sublayers": [{"Attention": {"heads": 8}}], "dropout": "much"}},
        {"Attention": {}},
        {"Attention": {"heads": "8"}},
        {"EncoderDecoder": {"width": 16}},
    ],
)
def test_what_is_written_wrongly_is_refused_in_words(written: dict[str, Any]) -> None:
    with pytest.raises(QkvError):
        plain.from_plain(written)


@given(text=st.text(max_size=30))
def test_whatever_is_given_as_a_change_is_taken_or_refused_in_words(text: str) -> None:
    spec = named("transformer-tiny", Separate(50, 60))
    for setting in (text, f"width={text}", f"tie={text}", f"{text}=3"):
        try:
            assert isinstance(plain.change(spec, setting), EncoderDecoder)
        except QkvError as error:
            assert str(error)


def test_two_vocabularies_cannot_be_one_matrix() -> None:
    spec = named("transformer-tiny", Separate(50, 60))
    assert isinstance(spec.tie, TargetAndOutput)
    with pytest.raises(QkvError, match="use TargetAndOutput"):
        plain.change(spec, "tie=AllThree()")


def test_the_nearest_model_is_named() -> None:
    with pytest.raises(QkvError, match="did you mean 'transformer-base'"):
        named("transformer-bass", Joint(100))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Joint(4),
        lambda: Separate(100, 3),
        lambda: Attention(0),
        lambda: Attention(2.0),
        lambda: Attention(True),
        lambda: FeedForward(-1),
        lambda: Block(),
        lambda: Block(Attention(1), dropout=1.0),
        lambda: Block(Attention(1), dropout=-0.1),
        lambda: Stack(depth=3),
        lambda: Stack(Block(Attention(1)), depth=0),
        lambda: Batching(0),
        lambda: Batching(10, 0),
        lambda: Checkpoints(keep=3, average=AtMost(4)),
        lambda: Checkpoints(every=0),
        lambda: Run("m", Files(("a",), ("b",)), smoothing=1.0),
        lambda: Run("m", Files(("a",), ("b",)), precision="fp8"),
        lambda: Run("m", Files(("a",), ("b",)), device="tpu"),
        lambda: Run("m", Files(("a",), ("b",)), longest=0),
        lambda: Files(("a", "b"), ("c",)),
        lambda: Pairs(("a",), ("x", "x")),
        lambda: HeldOut(1.0),
        lambda: Tokenizer("word"),
    ],
)
def test_a_value_that_makes_no_sense_cannot_be_made(wrong: Any) -> None:
    with pytest.raises(QkvError):
        wrong()


def test_a_tiled_stack_repeats_its_blocks_in_turn() -> None:
    one, two = Block(Attention(1)), Block(FeedForward(2))
    assert Stack(one, two, depth=5).tiled() == (one, two, one, two, one)
    assert Stack(one, two, depth=1).tiled() == (one,)


def test_a_star_changes_every_place_of_a_name() -> None:
    spec = named("transformer-tiny", Joint(100))
    changed = plain.change(plain.change(spec, "*.dropout=0.5"), "*.norm=PreNorm()")
    assert changed.embedding.dropout == 0.5
    assert {block.dropout for block in (*changed.encoder.blocks, *changed.decoder.blocks)} == {0.5}
    assert {type(block.norm).__name__ for block in (*changed.encoder.blocks, *changed.decoder.blocks)} == {"PreNorm"}
    for wrong in ("*.drop=0.5", "*=1", "*.blocks.0=1", "*.dropout=high"):
        with pytest.raises(QkvError):
            plain.change(spec, wrong)
