"""Writing on from a prompt: many at once as each alone, what stops it, what it may write, and no half characters."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from qkv.attention.sight import Plain
from qkv.decode.contrast import Contrastive
from qkv.decode.diverse import Diverse
from qkv.decode.generate import Continuation, Greedy, How, Sample, Writer, key_of
from qkv.decode.rule import Beam
from qkv.decode.sample import Allow, Ban, Constrained, Dice, NoRepeat, Repetition, Rule, Temperature, TopK, TopP, draw
from qkv.decode.speculate import Speculative
from qkv.error import QkvError

PROMPTS = ["the", "quick brown", "", "lazy dog jumps", "over", "x"]
FEW = PROMPTS[1:4]
SAID = "naïve €uro 😀 日本."  # characters of one to four bytes


@torch.no_grad()
def plainly(
    writer: Writer, prompt: str, length: int, choose: Callable[[torch.Tensor, int], int], rules: Sequence[Rule] = ()
) -> tuple[list[int], bool]:
    """What is written by full passes over everything so far, one prompt alone; and whether it ended."""
    ids = writer.given(prompt)
    first = len(ids)
    banned = sorted(writer.symbols.special - {writer.symbols.end})
    for step in range(min(length, int(writer.places) - first)):
        logits = writer.model(torch.tensor([ids]), Plain())[:, -1]
        logits[:, banned] = -torch.inf
        for rule in rules:
            logits = rule.apply(logits, torch.tensor([ids]))
        token = choose(logits, step)
        if token == writer.symbols.end:
            return ids[first:], True
        ids.append(token)
    return ids[first:], False


def same(one: Continuation, tokens: Sequence[int], finished: bool) -> bool:
    return (list(one.tokens), one.finished) == (list(tokens), finished)


def likeliest(logits: torch.Tensor, step: int) -> int:
    return int(logits.argmax())


def ways(draft: Writer) -> list[How]:
    """Every way of writing."""
    return [
        Greedy(),
        Sample(3),
        Beam(3),
        Diverse(2, 2, 0.7),
        Contrastive(4, 0.4),
        Speculative(draft.model, 3, seed=5),
    ]


WAYS = ["greedy", "sample", "beam", "diverse", "contrastive", "speculative"]


@pytest.fixture(params=range(len(WAYS)), ids=WAYS)
def how(request: pytest.FixtureRequest, make_writer: Callable[..., Writer]) -> How:
    """Every way of writing, in turn."""
    return ways(make_writer(seed=9))[request.param]


# Many at once


@pytest.mark.parametrize("rules", [(), (Repetition(1.3), NoRepeat(2), Temperature(1.5), TopP(0.9))], ids=["plain", "ruled"])
def test_many_greedy_are_full_passes_of_each_alone(writer: Writer, rules: tuple[Rule, ...]) -> None:
    together = writer.generate(PROMPTS, Greedy(), rules, length=16)
    for prompt, (found,) in zip(PROMPTS, together, strict=True):
        assert same(found, *plainly(writer, prompt, 16, likeliest, rules))
    assert len({len(found.tokens) for (found,) in together}) > 2, "they must end at different times"


def test_many_drawn_are_drawn_each_with_dice_of_its_own(writer: Writer) -> None:
    seed = 7
    rules = (NoRepeat(3), TopK(9))
    together = writer.generate(PROMPTS, Sample(seed), rules, length=16, count=2)
    for place, (prompt, found) in enumerate(zip(PROMPTS, together, strict=True)):
        for copy, one in enumerate(found):

            def drawn(logits: torch.Tensor, step: int, key: int = key_of(place, copy)) -> int:
                return int(draw(logits, Dice(seed).uniform([key], step)))

            assert same(one, *plainly(writer, prompt, 16, drawn, rules))
    assert len({found.tokens for both in together for found in both}) > len(PROMPTS)
    for batch in (1, 5):
        assert texts(writer.generate(PROMPTS, Sample(seed), rules, length=16, count=2, batch=batch)) == texts(together)


def test_a_prompt_among_others_comes_to_what_it_comes_to_alone(writer: Writer, how: How) -> None:
    """But for the dice, which depend on its place."""
    together = texts(writer.generate(FEW, how, length=8))
    assert together[0] == texts(writer.generate(FEW[:1], how, length=8))[0]
    if not isinstance(how, Sample | Speculative):
        assert together == [texts(writer.generate([prompt], how, length=8))[0] for prompt in FEW]


def texts(found: list[list[Continuation]]) -> list[list[tuple[str, bool]]]:
    return [[(each.text, each.finished) for each in some] for some in found]


def test_the_same_seed_writes_the_same_and_another_something_else(writer: Writer) -> None:
    first, again, other = (texts(writer.generate(PROMPTS, Sample(seed), length=9)) for seed in (1, 1, 2))
    assert first == again and sum(a != b for a, b in zip(first, other, strict=True)) > 3
    assert texts(writer.generate(PROMPTS[:3], Sample(1), length=9)) == first[:3], "later prompts have no part in it"


@pytest.mark.parametrize("rules", [(), (NoRepeat(2),)], ids=["plain", "ruled"])
def test_prompts_near_the_last_place_are_written_to_it_beside_short_ones(make_writer, rules: tuple[Rule, ...]) -> None:
    writer = make_writer(longest=24)
    prompts = ["the quick brown fox ju", "fox", "the quick brown ", "jumps over"]
    for prompt, (found,) in zip(prompts, writer.generate(prompts, Greedy(), rules, length=100), strict=True):
        assert same(found, *plainly(writer, prompt, 100, likeliest, rules))
        assert len(found.tokens) == 24 - 1 - len(prompt) or found.finished


def test_every_way_stops_at_the_last_place(make_writer, how: How) -> None:
    writer = make_writer(longest=20, ending=-1.0)
    for prompt in ("the quick brown f", "pack my box"):
        for found in writer.generate([prompt], how, length=100)[0]:
            assert len(found.tokens) == 20 - 1 - len(prompt) and not found.finished


def test_a_prompt_as_long_as_the_places_is_refused_by_both_numbers(make_writer) -> None:
    writer = make_writer(longest=10)
    with pytest.raises(QkvError, match=r"a prompt of 10 tokens leaves no room in the 10 places .* shorten it to fewer than 10"):
        writer.generate(["fox", "quick box"])


# What ends it


def test_no_more_tokens_than_asked_for_are_written_and_the_end_is_none_of_them(writer: Writer, how: How) -> None:
    ended = set()
    for length in (1, 16):
        for found in itertools.chain(*writer.generate(PROMPTS, how, length=length)):
            assert len(found.tokens) < length if found.finished else len(found.tokens) == length
            assert writer.symbols.end not in found.tokens
            ended.add(found.finished)
    assert len(ended) == 2


def test_what_stands_for_no_text_is_never_written(make_writer, how: How) -> None:
    writer = make_writer(ending=-1.0)
    special = sorted(writer.symbols.special)
    writer.model.output.weight.data[special] += 3 * writer.model.decoder.norm.bias.data.sign()
    writer.model.output.weight.data[writer.symbols.end] *= -1
    free = writer.model(torch.tensor([writer.given("the")]), Plain())[0, -1]
    assert int(free.argmax()) in special, "or there is nothing to forbid"
    for found in itertools.chain(*writer.generate(["the", "fox"], how, length=9)):
        assert len(found.tokens) == 9 and not set(special) & set(found.tokens)


@pytest.mark.parametrize("way", [Greedy(), Sample(4)], ids=["greedy", "sample"])
def test_a_stop_string_of_several_tokens_ends_the_text_before_it(make_writer, way: How) -> None:
    writer = make_writer(ending=-1.0)
    (whole,) = writer.generate(["the"], way, length=30)[0]
    for first, size in ((0, 1), (4, 3), (11, 6)):
        stop = whole.text[first : first + size]
        place = whole.text.find(stop)
        (found,) = writer.generate(["the"], way, length=30, stop=["not in it", stop])[0]
        assert (found.text, found.finished) == (whole.text[:place], True)
        assert found.tokens == whole.tokens[: place + size], "written no further than its end"
    one, other = whole.text[5:8], whole.text[9:11]
    earliest = min(whole.text.find(one), whole.text.find(other))
    assert writer.generate(["the"], way, length=30, stop=[other, one])[0][0].text == whole.text[:earliest]


def test_a_stop_string_in_the_prompt_stops_nothing(make_writer) -> None:
    writer = make_writer(ending=-1.0)
    (whole,) = writer.generate(["pack my box"], Greedy(), length=20)[0]
    assert "my box" not in whole.text
    (found,) = writer.generate(["pack my box"], Greedy(), length=20, stop=["my box", "box" + whole.text[0]])[0]
    assert found == replace(whole, score=found.score)


def test_every_way_ends_a_text_before_a_stop_string(make_writer, how: How) -> None:
    writer = make_writer(ending=-1.0)
    for whole in writer.generate(["the"], how, length=15)[0]:
        stop = whole.text[6:9]
        stopped = writer.generate(["the"], how, length=15, stop=[stop])[0]
        assert whole.text[: whole.text.find(stop)] in [each.text for each in stopped if each.finished]


# What may be written


def test_every_way_writes_what_is_allowed_and_nothing_else(make_writer, how: How) -> None:
    writer = make_writer(ending=-1.0)
    allowed = tuple(sorted(writer.tokenizer.encode(["abcdxyz "])[0]))
    written = set()
    for found in itertools.chain(*writer.generate(FEW, how, (Allow(allowed),), length=8)):
        assert len(found.tokens) == 8 and set(found.tokens) <= set(allowed)
        written |= set(found.text)
    assert len(written) > 1
    banned = tuple(writer.tokenizer.encode(["".join(written)])[0])
    for found in itertools.chain(*writer.generate(FEW, how, (Ban(banned),), length=8)):
        assert not set(found.text) & written


def test_every_way_repeats_no_pair_of_tokens_not_even_of_the_prompt(make_writer, how: How) -> None:
    writer = make_writer(ending=-1.0)
    repeats, letters = 0, Allow(tuple(writer.tokenizer.encode(["abcxyz"])[0]))
    for prompt in ("abcab", "zzxx"):
        for rules in ((letters,), (letters, NoRepeat(2))):
            for found in writer.generate([prompt], how, rules, length=14)[0]:
                pairs = list(itertools.pairwise([*writer.given(prompt), *found.tokens]))
                before = len(writer.given(prompt)) - 1
                again = sum(pair in pairs[:place] for place, pair in enumerate(pairs) if place >= before)
                repeats += again
                assert not again or len(rules) == 1
    assert repeats, "or the rule forbids nothing"


def test_a_forced_beginning_is_written_and_then_gone_on_from(make_writer, how: How) -> None:
    writer = make_writer(ending=-1.0)
    given, forced = writer.given("the"), writer.tokenizer.encode(["lazy dog"])[0]
    every = range(writer.tokenizer.size)

    def allowed(tokens: tuple[int, ...]) -> Sequence[int]:
        place = len(tokens) - len(given)
        return [forced[place]] if place < len(forced) else every

    for found in writer.generate(["the"], how, (Constrained(allowed),), length=14)[0]:
        assert found.text.startswith("lazy dog") and len(found.tokens) == 14
        if isinstance(how, Greedy):
            assert found.text == "lazy dog" + writer.generate(["thelazy dog"], how, length=6)[0][0].text


def test_a_text_that_has_ended_is_asked_nothing_more(make_writer) -> None:
    """A constraint need not know what comes after the end."""
    writer = make_writer()
    end, a, b = writer.symbols.end, *writer.tokenizer.encode(["ab"])[0]

    def allowed(tokens: tuple[int, ...]) -> Sequence[int]:
        assert end not in tokens
        return [end] if tokens[-1] == b else [b] if len(tokens) > 8 else [a]

    found = writer.generate(["the", "the quick brown"], Greedy(), (Constrained(allowed),), length=20)
    assert [(each.text, each.finished) for (each,) in found] == [("aaaaab", True), ("b", True)]


# As it comes


def spelling(writer: Writer, prompt: str, text: str) -> Constrained:
    """The rule that a text is written, and then the end."""
    before, tokens = len(writer.given(prompt)), [*writer.tokenizer.encode([text])[0], writer.symbols.end]
    return Constrained(lambda so_far: [tokens[min(len(so_far) - before, len(tokens) - 1)]])


@pytest.mark.parametrize("way", [Greedy(), Sample(2), Sample(3)], ids=str)
@pytest.mark.parametrize("stop", [(), ("zb",), ("b ", "q"), ("zzzz", "k!")], ids=str)
def test_a_stream_is_what_is_written_at_once(writer: Writer, way: Any, stop: tuple[str, ...]) -> None:
    for prompt in FEW:
        pieces = list(writer.stream(prompt, way, length=14, stop=stop))
        assert "".join(pieces) == writer.generate([prompt], way, length=14, stop=stop)[0][0].text
        assert all(pieces)


@pytest.mark.parametrize("stop", [(), ("ro 😀",), ("日本!", "本."), ("€uroo",)], ids=str)
def test_a_stream_breaks_no_character_and_takes_nothing_back(make_writer, stop: tuple[str, ...]) -> None:
    writer = make_writer("bytes", longest=60)
    rule = spelling(writer, "é", SAID)
    assert len(writer.tokenizer.encode([SAID])[0]) > len(SAID), "some characters are several tokens"
    pieces = list(writer.stream("é", Greedy(), (rule,), length=50, stop=stop))
    whole = writer.generate(["é"], Greedy(), (rule,), length=50, stop=stop)[0][0]
    assert "".join(pieces) == whole.text and whole.finished
    assert whole.text == SAID[: min((SAID.find(each) for each in stop if each in SAID), default=len(SAID))]
    assert not any("\ufffd" in piece for piece in pieces)
    assert len(pieces) > len(whole.text) / 3, "it comes piece by piece"


def test_a_text_cut_within_a_character_says_so_in_both_ways(make_writer) -> None:
    writer = make_writer("bytes", longest=60)
    rule = spelling(writer, "", "日本")
    (whole,) = writer.generate([""], Greedy(), (rule,), length=4)[0]
    assert whole.text == "日\ufffd" and not whole.finished
    assert list(writer.stream("", Greedy(), (rule,), length=4)) == ["日", "\ufffd"]


@pytest.mark.parametrize("kind", ["bpe", "unigram", "bytes", "characters"])
def test_prompt_and_continuation_are_one_text_with_its_spaces(make_writer, kind: str) -> None:
    writer = make_writer(kind)
    for said in (" lazy dog", "s over. the box!", " quick"):
        after = len(writer.tokenizer.encode(["the fox"])[0])
        tokens = writer.tokenizer.encode(["the fox" + said])[0]
        assert writer.tokenizer.encode(["the fox"])[0] == tokens[:after] or kind in ("bpe", "unigram")
        ending = iter([*tokens[after:], writer.symbols.end])
        if writer.tokenizer.decode(tokens[:after]) != "the fox":
            continue  # it is cut elsewhere when it goes on
        rule = Constrained(lambda _, ending=ending: [next(ending)])
        assert writer.generate(["the fox"], Greedy(), (rule,), length=40)[0][0].text == said
    rule = spelling(writer, "", "the fox")
    assert writer.generate([""], Greedy(), (rule,), length=40)[0][0].text == "the fox"
    assert "".join(writer.stream("", Greedy(), (rule,), length=40)) == "the fox"


# Errors


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"count": 0}, "at least 1 continuation, not 0"),
        ({"how": Greedy(), "count": 2}, "Greedy comes to 1 continuation of a prompt, not to 2"),
        ({"how": Contrastive(), "count": 2}, "Contrastive comes to 1 continuation"),
        ({"how": Beam(3), "count": 4}, "Beam comes to 3 continuations of a prompt, not to 4"),
        ({"how": Diverse(2, 4), "count": 3}, "Diverse comes to 2 continuations"),
        ({"length": 0}, "a continuation has at least 1 token, not 0"),
        ({"stop": [""]}, "a stop string has at least 1 character"),
        ({"how": Sample(-1)}, "a seed is a whole number"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_said(writer: Writer, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(QkvError, match=words):
        writer.generate(["the"], **wrong)


def test_a_model_that_does_not_write_is_refused_with_the_verb_that_fits(translator, reader) -> None:
    from qkv.store import Stored

    for model, verb in ((translator.model, "a translator, .*`qkv translate`"), (reader.model, "a masked model, .*`qkv fill`")):
        with pytest.raises(QkvError, match=f"the run is {verb}"):
            Writer(Stored(model, reader.tokenizer, reader.tokenizer))
