"""Universal Transformers from the command line: worlds, stories, ponder times, and what no other engine can hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Ask, asked
from tests.cli.test_inspect import refused

from qkv.data.stories import read_stories
from qkv.train.run_folder import read_run

SMALL = """
--device cpu --precision fp32 --steps 4 --batch-tokens 200 --set width=16 --set *.hidden=24 --set *.steps=3
--set *.halt=Halt(0.9,halted=Stays()) --set evaluation=Evaluation(2,5) --set checkpoints=Checkpoints(2,2,Exactly(2))
""".split()
STORIES = """1 Mary moved to the bathroom.
2 John went to the hallway.
3 Where is Mary? \tbathroom\t1
4 Daniel went back to the hallway.
5 Where is Daniel? \thallway\t4
1 John moved to the bathroom.
2 Where is John? \tbathroom\t1
1 Sandra journeyed to the hallway.
2 Where is Sandra? \thallway\t1
"""


@pytest.fixture(scope="module")
def copier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small universal translator in a world of digits."""
    out = tmp_path_factory.mktemp("copier") / "run"
    answer = asked(
        "train", "translate", "--world", "Copy(longest=6)", "--number", 200, "--model", "universal-tiny", "--out", out, *SMALL
    )
    assert answer.code == 0, answer.err
    assert "encoder ponders" in answer.err
    assert "of characters right" in answer.err
    return out


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stories") / "qa.txt"
    path.write_text(STORIES, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def answerer(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small universal reader of stories."""
    out = tmp_path_factory.mktemp("answerer") / "run"
    answer = asked("train", "classify", "--stories", stories, "--valid-stories", stories, "--out", out, *SMALL)
    assert answer.code == 0, answer.err
    return out


def test_a_world_is_learned_from_and_told_by_characters_and_answers(ask: Ask, copier: Path) -> None:
    final = [json.loads(line) for line in (copier / "journal.jsonl").read_text().splitlines()][-1]
    assert 0 <= final["characters"] <= 1
    assert 0 <= final["sequences"] <= 1
    found = json.loads(ask("evaluate", copier, "--world", "Copy(longest=9)", "--number", 12, "--json").out)
    assert [each["name"] for each in found] == ["characters right", "answers right", "tokens right after the truth"]
    assert found[0]["signature"] == "percent|Copy(longest=9)|answers:12|seed:3"
    assert "Drawn" in (copier / "run.toml").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--world", "Copi"], "did you mean 'Copy'?"),
        (["--world", "ReLU()"], "unknown world 'ReLU()'"),
        (["--world", "Copy(longest=0)"], "Copy.longest must be a whole number from 1"),
        (["--world", "Copy", "--source", "a", "--target", "b"], "in files or as a world, not both"),
    ],
)
def test_a_world_that_is_none_is_refused(ask: Ask, tmp_path: Path, options: list[str], words: str) -> None:
    refused(ask("train", "translate", "--out", tmp_path / "run", *options), words)


def test_stories_are_read_sentence_by_sentence(ask: Ask, answerer: Path, stories: Path, tmp_path: Path) -> None:
    described = json.loads((answerer / "model.json").read_text())["Classifier"]
    assert described["labels"] == ["bathroom", "hallway"]
    assert described["embedding"]["Embedding"]["unit"] == {
        "Sentences": {"longest": 32, "counted": {"FromTheStart": {}}, "recent": {"AllSentences": {}}}
    }
    assert described["pooling"] == {"LastToken": {}}
    found = json.loads(ask("evaluate", answerer, "--stories", stories, "--json").out)
    assert found[0]["name"] == "accuracy"
    assert found[0]["signature"] == "percent|texts:4|cut:0|labels:2"
    other = tmp_path / "other.txt"
    other.write_text(STORIES.replace("\tbathroom\t", "\tgarden\t"), encoding="utf-8")
    of_others = json.loads(ask("evaluate", answerer, "--stories", other, "--json").out)
    assert of_others[0]["signature"] == "percent|texts:4|cut:0|labels:2|never met:2" and of_others[0]["value"] <= 50
    asked_of = ["Mary moved to the hallway.", "Where is Mary?", "", "", "john went to the bathroom", "where is john"]
    told = ask("classify", answerer, stdin="".join(f"{line}\n" for line in asked_of).encode())
    assert told.code == 0, told.err
    assert [line.split("\t")[0] in ("bathroom", "hallway") for line in told.out.splitlines()] == [True, True]
    plainer = ask("classify", answerer, stdin=b"mary moved to the hallway\nwhere is mary\n")
    assert plainer.out == told.out.splitlines(keepends=True)[0]
    picture = ask("look", "heads", answerer, "mary moved to the hallway\nwhere is mary")
    assert picture.code == 0, picture.err


def test_answers_may_be_spelled_and_places_counted_from_the_question(ask: Ask, stories: Path, tmp_path: Path) -> None:
    answers = tmp_path / "qa.txt"
    answers.write_text(
        STORIES.replace("Where is Daniel? \thallway\t4", "Where is Daniel? \thallway,nowhere\t4"), encoding="utf-8"
    )
    run = tmp_path / "run"
    how = ["initial=Likeness()", "answer=Spelled()", "embedding.unit=Sentences(32,FromTheEnd(0.1))"]
    how += ["encoder.signal=Coordinates(Learned(9),LearnedStep())"]
    made = ask(
        *("train", "classify", "--stories", answers, "--valid-stories", answers, "--out", run, *SMALL),
        *(part for each in how for part in ("--set", each)),
    )
    assert made.code == 0, made.err
    described = json.loads((run / "model.json").read_text())["Classifier"]
    assert described["labels"] == ["bathroom", "hallway", "hallway,nowhere"]
    bathroom, hallway, both = described["answer"]["Spelled"]["words"]
    assert len(bathroom) == len(hallway) == 1 and both[0] == hallway[0] and len(both) == 2, "'nowhere' stands in no story"
    told = ask("classify", run, stdin=b"mary moved to the hallway\nwhere is mary\n")
    assert told.code == 0 and told.out.split("\t")[0] in described["labels"], told.err
    found = json.loads(ask("evaluate", run, "--stories", answers, "--json").out)
    assert found[0]["signature"] == "percent|texts:4|cut:0|labels:3"
    (pondered,) = json.loads(ask("look", "ponder", run, "mary moved to the hallway\nwhere is mary", "--json").out)
    assert pondered["pieces"] == ["mary moved to the hallway", "where is mary"]
    long = "".join("mary moved to the hallway\n" for _ in range(9)) + "where is mary\n"
    refused(ask("classify", run, stdin=long.encode()), "the model knows 9 places, and a text has 10 sentences")


def test_of_a_long_story_the_end_is_read_and_what_is_not_is_said(ask: Ask, stories: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    how = ("--set", "embedding.unit=Sentences(32, FromTheEnd(0.1), recent=2)")
    made = ask("train", "classify", "--stories", stories, "--valid-stories", stories, "--out", run, *SMALL, *how)
    assert made.code == 0, made.err
    assert "were longer than the model takes, and lost their beginning" in made.err
    whole = "john went to the garden\nmary moved to the hallway\nwhere is mary\n"
    told, short = ask("classify", run, stdin=whole.encode()), ask("classify", run, stdin=whole.split("\n", 1)[1].encode())
    assert told.out == short.out and told.out, told.err
    assert "1 texts are longer than 2 sentences: their beginning is not read" in told.err and not short.err
    (pondered,) = json.loads(ask("look", "ponder", run, whole.strip(), "--json").out)
    assert pondered["pieces"] == ["mary moved to the hallway", "where is mary"]
    (found, _) = json.loads(ask("evaluate", run, "--stories", stories, "--json").out)
    longer = sum(len(story.facts) > 1 for story in read_stories(stories))
    assert longer and f"|cut:{longer}|" in found["signature"]


def test_what_positions_are_is_for_the_text_to_say(ask: Ask, stories: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "run")
    of_tokens = ask("train", "classify", "--stories", stories, *out, *SMALL, "--set", "embedding.unit=Tokens()")
    refused(of_tokens, "embedding.unit=Tokens() does not go with this text")
    table = tmp_path / "t.tsv"
    table.write_text("text\tlabel\n" + "".join(f"a bad film\tb{n % 2}\n" for n in range(8)), encoding="utf-8")
    tabled = ("train", "classify", "--table", table, "--model", "universal-bert-tiny")
    of_sentences = ask(*tabled, *out, *SMALL, "--set", "embedding.unit=Sentences(4)")
    refused(of_sentences, "all other texts token by token: embedding.unit=Sentences(longest=4")


def test_places_are_spread_whichever_is_said_first(ask: Ask, tmp_path: Path) -> None:
    world = ("train", "translate", "--world", "Reverse(longest=5)", "--model", "universal-tiny", "--steps", 1)
    few = ("--set", "train.number=40", "--set", "*.steps=1", "--set", "width=8")
    refused(
        ask(*world, *few, "--out", tmp_path / "none", "--set", "spread=True"), "places are spread over those that roaming adds"
    )
    assert ask(*world, *few, "--out", tmp_path / "run", "--set", "spread=True", "--set", "roaming=9").code == 0
    assert read_run(tmp_path / "run" / "run.toml").spread


def test_labels_that_no_words_of_a_text_spell_are_refused(ask: Ask, tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("text\tlabel\n" + "".join(f"a bad film\tb{n % 2}\n" for n in range(8)), encoding="utf-8")
    answer = ask(
        *("train", "classify", "--table", table, "--valid-table", table, "--model", "bert-tiny", "--out", tmp_path / "run"),
        *("--tokenizer", "words", "--steps", 1, "--set", "answer=Spelled()"),
    )
    refused(answer, "answer=Spelled() tells labels by their words, and the vocabulary lacks some of those of b0, b1")


def test_whole_stories_are_held_out(ask: Ask, stories: Path, tmp_path: Path) -> None:
    answer = ask("train", "classify", "--stories", stories, "--out", tmp_path / "run", *SMALL, "--set", "valid=HeldOut(0.4)")
    assert answer.code == 0, answer.err
    assert "training table: 3 texts" in answer.err or "training table: 2 texts" in answer.err
    assert "validation table: 1 texts" in answer.err or "validation table: 2 texts" in answer.err


def test_a_broken_story_is_named(ask: Ask, tmp_path: Path) -> None:
    broken = tmp_path / "qa.txt"
    broken.write_text(STORIES.replace("2 John went", "3 John went"), encoding="utf-8")
    refused(
        ask("train", "classify", "--stories", broken, "--out", tmp_path / "run", *SMALL), f"line 2 of {broken} has the number 3"
    )


def test_look_ponder_draws_a_picture_under_the_words(ask: Ask, copier: Path, answerer: Path, tmp_path: Path) -> None:
    answer = ask("look", "ponder", copier, "314159", "314159", "--out", tmp_path / "p.png")
    assert (answer.code, answer.out) == (0, f"{tmp_path / 'p.png'}\n"), answer.err
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(ask("look", "ponder", copier, "3141", "31", "--json").out)
    assert [(each["side"], each["pieces"], each["most"]) for each in found] == [
        ("encoder", ["3", "1", "4", "1", "</s>"], 3),
        ("decoder", ["<s>", "3", "1"], 3),
    ]
    (of_story,) = json.loads(ask("look", "ponder", answerer, "mary moved to the hallway\nwhere is mary", "--json").out)
    assert of_story["pieces"] == ["mary moved to the hallway", "where is mary"]


def test_no_other_engine_holds_a_halting_model(ask: Ask, copier: Path, answerer: Path, tmp_path: Path) -> None:
    wanted = "a Recurrence whose positions halt by themselves: it wants a Stack"
    refused(ask("export", copier, tmp_path / "c", "--to", "ctranslate2"), "CTranslate2 cannot hold", wanted)
    refused(ask("export", copier, tmp_path / "h", "--to", "huggingface"), "transformers cannot hold", wanted)
    refused(ask("export", answerer, tmp_path / "h", "--to", "huggingface"), "transformers cannot hold", wanted)
    assert not (tmp_path / "c").exists() and not (tmp_path / "h").exists()
