"""Stories with questions: what is a fact and what supports an answer, what is a word, and that a wrong line is named."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from qkv.data.stories import Story, latest, read_stories, sentences, words
from qkv.error import QkvError
from qkv.spec.model import AllSentences

MARY = "Mary moved to the bathroom."
JOHN = "John went to the hallway."
MILK = "Mary got the milk there."
TWO = f"1 {MARY}\n2 {JOHN}\n3 Where is Mary? \tbathroom\t1\n4 {MILK}\n5 Where is the milk?\tbathroom\t4 1\n"
DIRECTIONS = set("nesw")
OBJECTS = {"apple", "football", "milk"}


def store(path: Path, content: str) -> Path:
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


def read(folder: Path, content: str, name: str = "qa.txt") -> list[Story]:
    return list(read_stories(store(folder / name, content)))


@cache
def task(folder: Path, number: int, part: str) -> tuple[Story, ...]:
    (path,) = folder.glob(f"qa{number}_*_{part}.txt*")
    return tuple(read_stories(path))


# What is read


@pytest.mark.parametrize("name", ["qa.txt", "qa.txt.gz"])
def test_every_question_has_the_facts_before_it(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, TWO, name) == [
        Story((MARY, JOHN), "Where is Mary?", "bathroom", (0,)),
        Story((MARY, JOHN, MILK), "Where is the milk?", "bathroom", (2, 0)),
    ]


def test_windows_and_empty_lines_at_the_end_change_nothing(tmp_path: Path) -> None:
    known = read(tmp_path, TWO)
    assert read(tmp_path, "\ufeff" + TWO.replace("\n", "\r\n") + "\r\n\r\n") == known
    assert read(tmp_path, TWO.rstrip("\n")) == known
    assert read(tmp_path, TWO + "\n \n") == known


def test_one_begins_another_story(tmp_path: Path) -> None:
    found = read(tmp_path, TWO + f"1 {JOHN}\n2 Where is John?\thallway\t1\n1 {MILK}\n2 Where is Mary?\tthere\t1\n")
    assert [story.facts for story in found[2:]] == [(JOHN,), (MILK,)]
    assert [story.supporting for story in found[2:]] == [(0,), (0,)]


def test_a_story_may_begin_with_a_question(tmp_path: Path) -> None:
    content = f"1 Who is there?\tnobody\n2 {MARY}\n3 Who is there?\tMary\t2\n1 Who is there?\tnobody\t\n"
    assert read(tmp_path, content) == [
        Story((), "Who is there?", "nobody", ()),
        Story((MARY,), "Who is there?", "Mary", (0,)),
        Story((), "Who is there?", "nobody", (), number=1),
    ]


def test_an_answer_of_several_words_stays_as_it_is(tmp_path: Path) -> None:
    found = read(tmp_path, f"1 {MILK}\n2 What has Mary?\tmilk,apple\t1\n3 How do you go?\ts,e\t1 1\n")
    assert [(story.answer, story.supporting) for story in found] == [("milk,apple", (0,)), ("s,e", (0, 0))]


# What is refused


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (MARY, 1, "begins with 'Mary moved to the ba'"),
        (f"1 {MARY}\n2\t{JOHN}", 2, "begins with '2\\tJohn"),
        (f"1 {MARY}\n²  {JOHN}", 2, "begins with '²"),
        (f"1 {MARY}\n-2 {JOHN}", 2, "begins with '-2"),
        (f"1 {MARY}\n{'9' * 5000} {JOHN}", 2, "begins with '9999"),
        (f"1 {MARY}\n2", 2, "begins with '2'"),
        (f"1 {MARY}\n2  ", 2, "nothing after its number"),
        (f"2 {MARY}", 1, "the number 2: expected 1;"),
        (f"0 {MARY}", 1, "the number 0: expected 1;"),
        (f"1 {MARY}\n3 {JOHN}", 2, "the number 3: expected 2, or 1 where another story begins"),
        (TWO + f"7 {JOHN}", 6, "the number 7: expected 6"),
        (TWO + f"5 {JOHN}", 6, "the number 5: expected 6"),
        (f"1 {MARY}\n2 Where is Mary?", 2, "a question without an answer: expected a tab"),
        (f"1 {MARY}\n2 Where is Mary?\t", 2, "a question without an answer"),
        (f"1 {MARY}\n2 Where is Mary?\t \t1", 2, "a question without an answer"),
        (f"1 {MARY}\n2 \tbathroom\t1", 2, "an answer without a question"),
        (f"1 {MARY}\n2 Where is Mary?\tbathroom\t1\t1", 2, "3 tabs"),
        (f"1 {MARY}\n2 Where is Mary?\tbathroom\t1,1", 2, "'1,1' as support"),
        (f"1 {MARY}\n2 Where is Mary?\tbathroom\t²", 2, "'²' as support"),
        (f"1 {MARY}\n2 Where is Mary?\tbathroom\t{'9' * 5000}", 2, "as support: expected numbers"),
        (f"1 {MARY}\n2 Where is Mary?\tbathroom\t0", 2, "line 0 of its story"),
        (f"1 {MARY}\n2 Where is Mary?\tbathroom\t2", 2, "line 2 of its story"),
        (f"1 {MARY}\n2 Where is Mary?\tbathroom\t3\n3 {JOHN}", 2, "line 3 of its story"),
        (TWO + "6 Where is Mary?\tbathroom\t1 3", 6, "line 3 of its story"),
        (TWO + f"1 {MARY}\n2 Where is Mary?\tbathroom\t2", 7, "line 2 of its story"),
        (f"1 {MARY}\n\n2 {JOHN}", 2, "is empty, but more lines follow"),
        (TWO + f"\n \n1 {MARY}", 6, "is empty, but more lines follow"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, content: str, line: int, said: str) -> None:
    with pytest.raises(QkvError, match=re.escape(said)) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(f"line {line} of {tmp_path / 'qa.txt'} ")


@pytest.mark.parametrize("content", ["", "\n", f"1 {MARY}\n2 {JOHN}\n"])
def test_a_file_without_a_question_is_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(QkvError, match=r"qa\.txt holds no question"):
        read(tmp_path, content)


def test_stories_are_read_as_a_stream(tmp_path: Path) -> None:
    stream = read_stories(str(store(tmp_path / "qa.txt", TWO + "nonsense\n")))
    assert [next(stream).answer, next(stream).answer] == ["bathroom", "bathroom"]


# Words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (MARY, "mary moved to the bathroom"),
        ("Is Bill, or Julie,in the park?", "is bill or julie in the park"),
        ("The T-shirt isn't John’s; it cost 20.", "the t-shirt isn't john’s it cost 20"),
        ("rock 'n' roll - so-called -", "rock 'n' roll so-called"),
        ("ΠΟΎ είναι η Μαίρη;", "πού είναι η μαίρη"),
        ("मेरी बाथरूम में है।", "मेरी बाथरूम में है"),
        ("Cafe\u0301 na\u00efve", "cafe\u0301 na\u00efve"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("玛丽在哪里？", "玛丽在哪里"),
        ("snake_case (and) «quotes»", "snake case and quotes"),
        ("... - ' ?", ""),
        ("", ""),
    ],
)
def test_words_are_lower_case_and_without_punctuation(text: str, found: str) -> None:
    assert words(text) == found.split()


# As released


@pytest.mark.parametrize("number", range(1, 21))
def test_every_task_has_its_thousand_questions(data_dir: Path, number: int) -> None:
    for part in ("train", "test"):
        stories = task(data_dir / "babi" / "en", number, part)
        assert len(stories) == 1000
        assert all(story.facts and story.supporting and story.question.endswith("?") for story in stories)
        assert all(fact.endswith(".") and "\t" not in fact for story in stories for fact in story.facts)
        assert not any(re.search(r"[^a-z]", word) for story in stories for word in words(story.question))


def test_the_larger_set_has_ten_thousand_and_the_same_test(data_dir: Path) -> None:
    small, large = data_dir / "babi" / "en", data_dir / "babi" / "en-10k"
    assert len(task(large, 1, "train")) == 10_000
    assert task(large, 1, "test") == task(small, 1, "test")


@pytest.mark.parametrize(("number", "support"), [(1, 1), (2, 2), (3, 3), (12, 1), (15, 2), (16, 3), (19, 2)])
def test_tasks_need_so_many_facts(data_dir: Path, number: int, support: int) -> None:
    for part in ("train", "test"):
        assert {len(set(story.supporting)) for story in task(data_dir / "babi" / "en", number, part)} == {support}


def test_support_tells_the_answer(data_dir: Path) -> None:
    for story in task(data_dir / "babi" / "en", 1, "test"):
        (support,) = story.supporting
        fact = words(story.facts[support])
        assert story.answer in fact and words(story.question)[-1] == fact[0]
        assert not any(words(later)[0] == fact[0] for later in story.facts[support + 1 :]), "and is the last word on it"


def test_support_of_a_chain_tells_where_it_ends(data_dir: Path) -> None:
    for number in (2, 3):
        for story in task(data_dir / "babi" / "en", number, "test"):
            told = [words(story.facts[place]) for place in story.supporting]
            assert any(story.answer in fact for fact in told)
            assert any(words(story.question)[3] in fact for fact in told), "the thing that is asked for"


def test_lists_are_joined_by_commas(data_dir: Path) -> None:
    answers = Counter(story.answer for story in task(data_dir / "babi" / "en", 8, "test"))
    assert answers["nothing"] == 336 and answers["milk"] == 207
    held = [answer.split(",") for answer in answers if answer != "nothing"]
    assert all(set(things) <= OBJECTS and len(set(things)) == len(things) for things in held)
    assert {len(things) for things in held} == {1, 2, 3}


def test_paths_are_two_steps(data_dir: Path) -> None:
    paths = {tuple(story.answer.split(",")) for story in task(data_dir / "babi" / "en", 19, "test")}
    assert all(len(path) == 2 and set(path) <= DIRECTIONS for path in paths)
    assert len(paths) == 12, "all but those that lead back"


# What is read of a long one


def test_of_a_story_the_last_sentences_are_read() -> None:
    text = sentences(f"{MARY}\n...\n{JOHN}\n\nWhere is Mary?")
    assert text == "mary moved to the bathroom\njohn went to the hallway\nwhere is mary", "lines without words are none"
    assert latest(text, 2) == "john went to the hallway\nwhere is mary" and latest(text, 1) == "where is mary"
    assert latest(text, 3) == latest(text, 9) == latest(text, AllSentences()) == text
