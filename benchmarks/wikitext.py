"""WikiText-2: how well a decoder predicts the next word, how well an encoder fills in a missing one, and which of two sentences
that differ in one word they find likelier; beside an interpolated 5-gram model of the same text.

    python benchmarks/wikitext.py ngram   --data $QKV_DATA
    python benchmarks/wikitext.py decoder --data $QKV_DATA --run RUN
    python benchmarks/wikitext.py encoder --data $QKV_DATA --run RUN

Perplexity is per word of the test text, the end of each line a word. Masked words are drawn from the lines of the test text, one
at a time, none of them <unk>; the encoder is given one mask for the word, so that it misses every word that is several tokens to
it; the 5-gram model takes the word that makes the five 5-grams around it likeliest, out of those that it finds likeliest after
what precedes. Agreement (Marvin and Linzen 2018): the share of pairs of which the grammatical sentence is the likelier, the mean
over the templates; the encoder's measure is the pseudo-log-likelihood. Last words are those of the passages of LAMBADA.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from measure import Results
from ngram import KneserNey

import qkv
from qkv import device
from qkv.decode.generate import Writer
from qkv.decode.read import Reader
from qkv.spec.data import Texts
from qkv.train.journal import read
from qkv.train.measure import last_words, likelihood, restoration

END, UNKNOWN = "<eos>", "<unk>"
MASKED = 2000  # words
PAIRS = 200  # of a template, at most
AROUND = 40  # words on either side of a masked one that the encoder is given
SHORTLIST = 2000  # candidates of the 5-gram model
ORDER = 5

Line = list[str]


def lines(path: Path) -> Iterator[Line]:
    """The words of each line."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for line in file:
            yield line.split()


def holes(test: list[Line]) -> list[tuple[Line, int]]:
    """Lines, each with the place of a word that is to be found."""
    places = [(n, i) for n, line in enumerate(test) for i, word in enumerate(line) if len(line) > ORDER and word != UNKNOWN]
    return [(test[n], i) for n, i in random.Random(0).sample(places, MASKED)]


def agreement(data: Path, scores: Callable[[list[str]], list[float]]) -> dict[str, Any]:
    """The share of pairs that are told apart, by template."""
    by_template: dict[str, list[tuple[str, str]]] = defaultdict(list)
    with gzip.open(data / "marvin_linzen" / "marvin_linzen.tsv.gz", "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            by_template[row["template"]].append((row["grammatical"], row["ungrammatical"]))
    shares = {}
    for template, pairs in sorted(by_template.items()):
        some = random.Random(0).sample(pairs, min(PAIRS, len(pairs)))
        found = scores([f"{text[0].upper()}{text[1:]} ." for pair in some for text in pair])
        shares[template] = round(100 * fmean(a > b for a, b in zip(found[::2], found[1::2], strict=True)), 1)
    return {"agreement": round(fmean(shares.values()), 1), "agreement_by_template": shares}


def ngram(data: Path) -> dict[str, Any]:
    """The baseline."""
    folder = data / "wikitext2"
    streams = {
        name: [word for line in lines(folder / file) for word in (*line, END)]
        for name, file in (("train", "train.txt.gz"), ("valid", "valid.txt"), ("test", "test.txt"))
    }
    numbers = {word: number for number, word in enumerate(dict.fromkeys(streams["train"]))}
    model = KneserNey(np.array([numbers[word] for word in streams["train"]]), len(numbers), ORDER)

    def surprises(words: Line) -> np.ndarray:
        ids = np.array([numbers[END]] * (ORDER - 1) + [numbers.get(word, numbers[UNKNOWN]) for word in words])
        contexts = np.lib.stride_tricks.sliding_window_view(ids[:-1], ORDER - 1)
        return -np.log(model(ids[ORDER - 1 :], contexts))

    def filled(line: Line, place: int) -> bool:
        framed = [END] * (ORDER - 1) + line + [END] * (ORDER - 1)
        ids, at = np.array([numbers.get(word, numbers[UNKNOWN]) for word in framed]), place + ORDER - 1
        every = np.arange(len(numbers))
        likely = np.log(model(every, np.broadcast_to(ids[at - ORDER + 1 : at], (len(every), ORDER - 1))))
        likely[numbers[UNKNOWN]] = -np.inf
        candidates = np.argsort(-likely)[:SHORTLIST]
        total = likely[candidates]
        last = min(at + ORDER, len(framed) - ORDER + 2)  # past the end of the line nothing is predicted
        for then in range(at + 1, last):
            contexts = np.broadcast_to(ids[then - ORDER + 1 : then], (len(candidates), ORDER - 1)).copy()
            contexts[:, at - then + ORDER - 1] = candidates
            total = total + np.log(model(np.full(len(candidates), ids[then]), contexts))
        return int(candidates[total.argmax()]) == ids[at]

    result: dict[str, Any] = {
        f"perplexity_per_word_{name}": round(float(np.exp(surprises(streams[name]).mean())), 2) for name in ("valid", "test")
    }
    result["masked_words"] = round(100 * fmean(filled(*hole) for hole in holes(list(lines(folder / "test.txt")))), 2)
    return result | agreement(data, lambda texts: [-float(surprises([*text.split(), END]).sum()) for text in texts])


def decoder(data: Path, run: Path, stride: int) -> dict[str, Any]:
    """A language model."""
    writer = qkv.load(run, device="cpu")
    assert isinstance(writer, Writer)
    result: dict[str, Any] = {}
    for name in ("valid", "test"):
        measured = likelihood(writer, run, Texts((str(data / "wikitext2" / f"{name}.txt"),)), 0, stride, 8192)
        result |= {f"{row['name'].replace(' ', '_')}_{name}": round(row["value"], 4) for row in measured}
        result["signature"] = measured[0]["signature"]
    for row in last_words(writer, str(data / "lambada" / "lambada_test.jsonl.gz"), 8192):
        result |= {row["name"].replace(" ", "_"): round(row["value"], 4)}
    told = agreement(data, lambda texts: writer.score([f"\n {text} \n" for text in texts]))
    return result | told | trained(run, writer)


def encoder(data: Path, run: Path) -> dict[str, Any]:
    """A masked model."""
    reader = qkv.load(run, device="cpu")
    assert isinstance(reader, Reader)
    result: dict[str, Any] = {}
    for row in restoration(reader, Texts((str(data / "wikitext2" / "test.txt"),))):
        result[row["name"].replace(" ", "_")] = round(row["value"], 3)
    right = 0
    for line, place in holes(list(lines(data / "wikitext2" / "test.txt"))):
        before, after = line[max(0, place - AROUND) : place], line[place + 1 : place + 1 + AROUND]
        right += reader.fill(f" {' '.join([*before, '<mask>', *after])} ", 1)[0][0].word == line[place]
    result["masked_words"] = round(100 * right / MASKED, 2)
    return result | agreement(data, lambda texts: reader.score([f" {text}" for text in texts])) | trained(run, reader)


def trained(run: Path, model: Writer | Reader) -> dict[str, Any]:
    """How large the model is, and how long it trained."""
    final = next(line for line in reversed(read(run / "journal.jsonl")) if line["kind"] == "final")
    parameters = sum(parameter.numel() for parameter in model.model.parameters())
    return {"parameters": parameters, "steps": final["step"], "minutes": round(final["seconds"] / 60, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["ngram", "decoder", "encoder"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--stride", type=int, default=64)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/wikitext.jsonl"))
    options = parser.parse_args()
    device.prepare()
    results = Results(options.results)
    if options.model == "ngram":
        results.measure({"model": "5-gram"}, lambda: ngram(options.data))
    elif options.run is None:
        parser.error("--run names the trained model")
    elif options.model == "decoder":
        what = {"model": "decoder", "run": options.run.name, "stride": options.stride}
        results.measure(what, lambda: decoder(options.data, options.run, options.stride))
    else:
        results.measure({"model": "encoder", "run": options.run.name}, lambda: encoder(options.data, options.run))


if __name__ == "__main__":
    main()
