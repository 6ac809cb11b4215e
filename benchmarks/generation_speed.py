"""Generation speed of a decoder against Hugging Face's GPT-2: one prompt, greedily written on, the same random weights, in turns.

    python benchmarks/generation_speed.py [--model gpt2-small]

Both sides write so many tokens after the same prompt, with the special entries banned and no end. The peer is measured in fp32
and in bf16 by its `generate`, ours in fp32, bf16 and int8 by `Writer.generate`; whether both wrote the same is told. The bound is
what a token takes at least: the bytes of the weights that it is multiplied by, over the measured rate of a matrix-vector product.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import Results, Worker, in_turns, summary
from tokenizers import Tokenizer as Raw
from tokenizers import models

from qkv import device
from qkv.data.symbols import SPECIALS
from qkv.data.tokenizer import Tokenizer
from qkv.decode.generate import Greedy, Writer
from qkv.decode.sample import Ban
from qkv.interop.huggingface.importing import bring
from qkv.model.transformer import pack, quantise
from qkv.papers.catalogue import named
from qkv.spec.model import Joint
from qkv.store import Stored

VOCABULARY = 50257
SPREAD = 0.05  # of the weights; with less, all tokens of a random model look alike
OURS, THEIRS = ("fp32", "bf16", "int8"), ("fp32", "bf16")


def peer(model: str, folder: Path) -> None:
    """A random GPT-2 of the sizes of a named model, in its own format."""
    import transformers

    spec = named(model, Joint(VOCABULARY))
    block = spec.decoder.blocks[0].sublayers  # pyright: ignore[reportAttributeAccessIssue]
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=spec.width,
        n_head=block[0].heads,
        n_layer=spec.decoder.depth,  # pyright: ignore[reportAttributeAccessIssue]
        n_positions=spec.embedding.position.longest,
        initializer_range=SPREAD,
    )
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)


def ours(folder: Path, threads: int, precision: str) -> Callable[[tuple[list[int], int]], tuple[float, Any]]:
    """Our side, in one precision."""
    device.prepare(threads)
    model = bring(folder).stored.model
    if precision == "int8":
        quantise(model)
    else:
        pack(model.to(device.pick("cpu", precision).precision))
    words = {f"w{number}": number for number in range(len(SPECIALS), VOCABULARY)}
    entries = {name: number for number, name in enumerate(SPECIALS)} | words
    tokenizer = Tokenizer(Raw(models.WordLevel(entries, unk_token=SPECIALS[3])))
    writer = Writer(Stored(model, tokenizer, tokenizer))
    writer.given = lambda prompt: [int(number) for number in prompt.split()]  # type: ignore[method-assign]

    def work(job: tuple[list[int], int]) -> tuple[float, Any]:
        prompt, length = job
        rules = [Ban(tuple(range(len(SPECIALS))))]
        ((found,),) = writer.generate([" ".join(map(str, prompt))], Greedy(), rules, length=length)
        return float(len(found.tokens)), list(found.tokens)

    return work


def theirs(folder: Path, threads: int, precision: str) -> Callable[[tuple[list[int], int]], tuple[float, Any]]:
    """GPT2LMHeadModel, in one precision."""
    import transformers

    torch.set_num_threads(threads)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    model = transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=dtype).eval()

    @torch.inference_mode()
    def work(job: tuple[list[int], int]) -> tuple[float, Any]:
        prompt, length = job
        banned = list(range(len(SPECIALS)))
        ids = torch.tensor([prompt])
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=length,
            do_sample=False,
            suppress_tokens=banned,
            eos_token_id=None,
            pad_token_id=0,
        )
        return float(length), found[0, len(prompt) :].tolist()

    return work


def rate(threads: int, size: int) -> float:
    """Bytes a second of matrix-vector products in fp32 over matrices that come to so many bytes together, as the weights of a
    model do: the best of some passes. One matrix alone may lie in a cache that the model is too large for."""
    torch.set_num_threads(threads)
    matrices = [torch.randn(3072, 768) for _ in range(max(1, size // (4 * 3072 * 768)))]
    vector, times = torch.randn(1, 768), []
    for _ in range(10):
        start = time.perf_counter()
        for matrix in matrices:
            torch.nn.functional.linear(vector, matrix)
        times.append(time.perf_counter() - start)
    return sum(matrix.numel() * 4 for matrix in matrices) / min(times)


def contest(model: str, threads: int, rounds: int, prompt: list[int], length: int) -> dict[str, Any]:
    """Tokens per second of every side in every precision, and what the machine would allow."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peer(model, folder)
        workers = {f"qkv {precision}": Worker(ours, folder, threads, precision) for precision in OURS}
        workers |= {f"transformers {precision}": Worker(theirs, folder, threads, precision) for precision in THEIRS}
        job = (prompt, length)
        speeds = in_turns({name: (worker, job) for name, worker in workers.items()}, rounds)
        texts = {name: worker.do(job)[1] for name, worker in workers.items()}
        for worker in workers.values():
            worker.close()
    best = max((f"transformers {p}" for p in THEIRS), key=lambda name: sorted(speeds[name])[len(speeds[name]) // 2])
    result: dict[str, Any] = {"unit": "tokens/s", "against int8": best}
    for precision in OURS:
        against = best if precision == "int8" else f"transformers {precision}"
        found = summary(speeds, f"qkv {precision}", against)
        result |= {name: found[name] for name in found if name in speeds}
        result |= {f"{precision} {key}": found[key] for key in ("ratio", "ratio_least", "ratio_most")}
        pairs = zip(texts[f"qkv {precision}"], texts[against], strict=True)
        result[f"{precision} same tokens"] = next((i for i, (a, b) in enumerate(pairs) if a != b), length)
    read = sum(p.numel() for p in _multiplied(model))
    for precision, size in (("fp32", 4), ("bf16", 2), ("int8", 1)):
        speed = rate(threads, read * size)
        result[f"{precision} matrix-vector GB/s"] = round(speed / 1e9, 2)
        result[f"{precision} share of bound"] = round(result[f"qkv {precision}"] * read * size / speed, 3)
        if precision in THEIRS:
            result[f"transformers {precision} share of bound"] = round(
                result[f"transformers {precision}"] * read * size / speed, 3
            )
    return result


def _multiplied(model: str) -> list[Any]:
    """Every weight that a token is multiplied by; places are only looked up."""
    from qkv.model.transformer import build

    with torch.device("meta"):
        built = build(named(model, Joint(VOCABULARY)))
    return [parameter for name, parameter in built.named_parameters() if "places" not in name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gpt2-small")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of the prompt")
    parser.add_argument("--length", type=int, default=64, help="tokens written")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/generation_speed.jsonl"))
    options = parser.parse_args()
    import transformers

    prompt = torch.randint(len(SPECIALS), VOCABULARY, (options.prompt,), generator=torch.Generator().manual_seed(1)).tolist()
    what = {name: getattr(options, name) for name in ("model", "prompt", "length", "threads")}
    what["transformers"] = transformers.__version__
    results = Results(options.results)
    results.measure(what, lambda: contest(options.model, options.threads, options.rounds, prompt, options.length))


if __name__ == "__main__":
    main()
