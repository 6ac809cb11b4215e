"""Training speed against Hugging Face's MarianMTModel: the same sentences, the same sizes, equal token budgets, in turns.

    python benchmarks/training_speed.py --source F --target F

Both sides train the same encoder-decoder (post-norm, sinusoids, tied embeddings, ReLU, dropout at the same places, label
smoothing 0.1, Adam with PyTorch's fused update) on the same batches, grouped by length, and each step is timed whole: batch,
forward, backward, update. The peer is measured in fp32 and under bf16 autocast, and its better figure counts; ours runs in the
precision that it picks by itself.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measure import Results, Worker, in_turns, summary

from qkv import device
from qkv.data.batch import plan
from qkv.data.corpus import prepare
from qkv.model.dropout import Noise
from qkv.model.transformer import build
from qkv.papers.transformer import transformer
from qkv.spec.data import Exactly, Files, HeldOut, Tokenizer
from qkv.spec.model import Joint
from qkv.spec.run import Adam
from qkv.train.loss import Smoothing
from qkv.train.optimiser import optimiser
from qkv.train.pairs import batch_of, losses


@dataclass(frozen=True)
class Sizes:
    """What both sides are built to."""

    name: str
    width: int
    hidden: int
    heads: int
    depth: int
    dropout: float
    vocabulary: int


SIZES = (
    Sizes("width 256, hidden 1024, 4 heads, 3+3 blocks", 256, 1024, 4, 3, 0.1, 8000),
    Sizes("transformer-tiny: width 128, hidden 256, 4 heads, 4+4 blocks", 128, 256, 4, 4, 0.3, 10000),
)


@dataclass(frozen=True)
class Text:
    """What both sides read."""

    source: str
    target: str
    cache: str
    tokens: int
    steps: int


def _batches(sizes: Sizes, text: Text) -> Callable[[], list[Any]]:
    """The next few batches, in the same order on both sides."""
    cut = Tokenizer("bpe", Exactly(sizes.vocabulary))
    prepared = prepare(Files((text.source,), (text.target,)), HeldOut(), cut, seed=1, longest=256, cache=Path(text.cache))
    corpus = prepared.train
    planned = plan(corpus.source.lengths, corpus.target.lengths, tokens=text.tokens, seed=1, epoch=0)
    place = 0

    def following() -> list[Any]:
        nonlocal place
        place += text.steps
        return [batch_of(corpus, planned[i % len(planned)], prepared.tokenizers) for i in range(place - text.steps, place)]

    return following


def ours(sizes: Sizes, text: Text, threads: int) -> Callable[[str], tuple[float, Any]]:
    """Our side: what `qkv train` does in a step."""
    device.prepare(threads)
    where = device.pick("cpu", "auto")
    spec = transformer(
        Joint(sizes.vocabulary),
        width=sizes.width,
        hidden=sizes.hidden,
        heads=sizes.heads,
        depth=sizes.depth,
        dropout=sizes.dropout,
    )
    model = build(spec)
    adam = optimiser(Adam(), model)
    adam.param_groups[0]["lr"] = 1e-4
    following = _batches(sizes, text)
    step = 0

    def work(job: str) -> tuple[float, Any]:
        nonlocal step
        tokens = 0
        for batch in following():
            step += 1
            with torch.autocast("cpu", where.precision, enabled=where.precision != torch.float32):
                smoothed, _ = losses(model, batch, Smoothing(0.1), Noise(1, step), where.precision)
            (smoothed / batch.tokens).backward()
            adam.step()
            adam.zero_grad(set_to_none=True)
            tokens += batch.tokens
        return float(tokens), {"parameters": sum(p.numel() for p in model.parameters()), "precision": str(where.precision)}

    return work


def theirs(sizes: Sizes, text: Text, threads: int) -> Callable[[str], tuple[float, Any]]:
    """MarianMTModel, in the precision that the job names."""
    import transformers

    torch.set_num_threads(threads)
    config = transformers.MarianConfig(
        vocab_size=sizes.vocabulary,
        d_model=sizes.width,
        encoder_layers=sizes.depth,
        decoder_layers=sizes.depth,
        encoder_attention_heads=sizes.heads,
        decoder_attention_heads=sizes.heads,
        encoder_ffn_dim=sizes.hidden,
        decoder_ffn_dim=sizes.hidden,
        dropout=sizes.dropout,
        attention_dropout=0.0,
        activation_dropout=0.0,
        activation_function="relu",
        scale_embedding=True,
        max_position_embeddings=512,
        pad_token_id=0,
        eos_token_id=2,
        bos_token_id=1,
        decoder_start_token_id=1,
        use_cache=False,
    )
    model = transformers.MarianMTModel(config).train()
    adam = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9, fused=True)
    following = _batches(sizes, text)

    def work(job: str) -> tuple[float, Any]:
        tokens = 0
        for batch in following():
            labels = batch.target_out.masked_fill(batch.target_out == 0, -100)
            mask = torch.arange(batch.source.shape[1]) < batch.source_lengths[:, None]
            with torch.autocast("cpu", torch.bfloat16, enabled=job == "bf16"):
                logits = model(input_ids=batch.source, attention_mask=mask.long(), decoder_input_ids=batch.target_in).logits
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1)
            loss.backward()
            adam.step()
            adam.zero_grad(set_to_none=True)
            tokens += batch.tokens
        return float(tokens), {"parameters": sum(p.numel() for p in model.parameters()), "precision": job}

    return work


def contest(sizes: Sizes, text: Text, threads: int, rounds: int) -> dict[str, Any]:
    """Non-padding target tokens per second of both sides."""
    sides = {"qkv": Worker(ours, sizes, text, threads), "marian": Worker(theirs, sizes, text, threads)}
    jobs = {"qkv": (sides["qkv"], "auto"), "marian fp32": (sides["marian"], "fp32"), "marian bf16": (sides["marian"], "bf16")}
    speeds = in_turns(jobs, rounds)
    better = max(("marian fp32", "marian bf16"), key=lambda name: sorted(speeds[name])[len(speeds[name]) // 2])
    result = {**summary(speeds, "qkv", better), "against": better, "unit": "non-padding target tokens/s"}
    result["ours"] = sides["qkv"].do("auto")[1]
    for worker in sides.values():
        worker.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--tokens", type=int, default=4096, help="positions of a batch on either side")
    parser.add_argument("--steps", type=int, default=4, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/training_speed.jsonl"))
    options = parser.parse_args()
    import transformers

    results = Results(options.results)
    with tempfile.TemporaryDirectory() as cache:
        text = Text(options.source, options.target, cache, options.tokens, options.steps)
        for sizes in SIZES:
            how = {"batch_tokens": options.tokens, "threads": options.threads, "transformers": transformers.__version__}
            results.measure(vars(sizes) | how, lambda sizes=sizes: contest(sizes, text, options.threads, options.rounds))


if __name__ == "__main__":
    main()
