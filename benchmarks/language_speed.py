"""Training speed of a decoder and of an encoder by themselves, against Hugging Face's GPT-2 and BERT: the same rows of the same
text, the same sizes, in turns.

    python benchmarks/language_speed.py --text F

GPT-2: every row is full, and every token is predicted. BERT: 15% of the tokens are predicted. Dropout stands at the same places
on both sides (the peer's dropout of attention weights is off, which is to its favour); Adam with PyTorch's fused update; each
step is timed whole: batch, forward, backward, update. The peer is measured in fp32 and under bf16 autocast, each as it is and
compiled by `torch.compile`, and its best figure counts; ours runs in the precision that it picks by itself.
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
from qkv.model.dropout import Noise
from qkv.model.transformer import build
from qkv.papers.bert import bert
from qkv.papers.gpt import gpt
from qkv.spec.data import Exactly, HeldOut, Texts, Tokenizer
from qkv.spec.model import Joint
from qkv.spec.objective import Generate, MaskedWords
from qkv.spec.run import Batching, Run
from qkv.train.loss import Smoothing
from qkv.train.optimiser import optimiser
from qkv.train.task import Task
from qkv.train.tasks import task_of

IGNORED = -100
PEERS = ("fp32", "bf16", "fp32 compiled", "bf16 compiled")


@dataclass(frozen=True)
class Sizes:
    """What both sides are built to."""

    shape: str
    width: int
    heads: int
    depth: int
    vocabulary: int
    length: int
    tokens: int
    dropout: float = 0.1


SIZES = (
    Sizes("gpt", 256, 8, 6, 10000, 256, 4096),
    Sizes("bert", 256, 4, 4, 10000, 128, 4096),
)


@dataclass(frozen=True)
class Text:
    """What both sides read."""

    file: str
    cache: str
    steps: int


def _run(sizes: Sizes, text: Text) -> Run:
    objective = Generate() if sizes.shape == "gpt" else MaskedWords()
    extra = () if sizes.shape == "gpt" else ("<mask>",)
    return Run(
        model="gpt-mini" if sizes.shape == "gpt" else "bert-mini",
        train=Texts((text.file,)),
        valid=HeldOut(),
        objective=objective,
        tokenizer=Tokenizer("bytes", Exactly(sizes.vocabulary), extra=extra),
        longest=sizes.length - (0 if sizes.shape == "gpt" else 2),
        batching=Batching(sizes.tokens),
    )


def _batches(sizes: Sizes, text: Text) -> tuple[Task, Callable[[], list[Any]]]:
    """The next few batches, in the same order on both sides."""
    task = task_of(_run(sizes, text), None, Path(text.cache))
    plan, place = task.plan(0), 0

    def following() -> list[Any]:
        nonlocal place
        place += text.steps
        return [task.batch(plan, number % len(plan), 0) for number in range(place - text.steps, place)]

    return task, following


def ours(sizes: Sizes, text: Text, threads: int) -> Callable[[str], tuple[float, Any]]:
    """Our side: what `qkv train` does in a step."""
    device.prepare(threads)
    where = device.pick("cpu", "auto")
    made = gpt if sizes.shape == "gpt" else bert
    spec = made(
        Joint(sizes.vocabulary),
        width=sizes.width,
        heads=sizes.heads,
        depth=sizes.depth,
        longest=sizes.length,
        dropout=sizes.dropout,
    )
    task, following = _batches(sizes, text)
    model, step = build(spec), 0
    adam = optimiser(task.run.optimiser, model)  # pyright: ignore[reportAttributeAccessIssue]
    adam.param_groups[0]["lr"] = 1e-4

    def work(job: str) -> tuple[float, Any]:
        nonlocal step
        positions = 0
        for batch in following():
            step += 1
            with torch.autocast("cpu", where.precision, enabled=where.precision != torch.float32):
                loss, _ = task.losses(model, batch, Smoothing(0.0), Noise(1, step), where.precision)
            (loss / batch.tokens).backward()
            adam.step()
            adam.zero_grad(set_to_none=True)
            positions += _positions(batch)
        return float(positions), {"parameters": sum(p.numel() for p in model.parameters()), "precision": str(where.precision)}

    return work


def _positions(batch: Any) -> int:
    """Tokens read, without padding."""
    return batch.tokens if hasattr(batch, "given") else int(batch.lengths.sum())


def _peer(sizes: Sizes) -> Any:
    import transformers

    if sizes.shape == "gpt":
        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=sizes.vocabulary,
                n_embd=sizes.width,
                n_head=sizes.heads,
                n_layer=sizes.depth,
                n_positions=sizes.length,
                embd_pdrop=sizes.dropout,
                resid_pdrop=sizes.dropout,
                attn_pdrop=0.0,
                use_cache=False,
            )
        )
    return transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=sizes.vocabulary,
            hidden_size=sizes.width,
            num_attention_heads=sizes.heads,
            num_hidden_layers=sizes.depth,
            intermediate_size=4 * sizes.width,
            max_position_embeddings=sizes.length,
            hidden_dropout_prob=sizes.dropout,
            attention_probs_dropout_prob=0.0,
        )
    )


def theirs(sizes: Sizes, text: Text, threads: int, compiled: bool) -> Callable[[str], tuple[float, Any]]:
    """Hugging Face's model, in the precision that the job names."""
    torch.set_num_threads(threads)
    model = _peer(sizes).train()
    adam = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9, fused=True)
    _, following = _batches(sizes, text)

    def loss_of(inputs: dict[str, Any], labels: Any) -> Any:
        logits = model(**inputs).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)

    loss_of = torch.compile(loss_of, dynamic=False) if compiled else loss_of

    def work(job: str) -> tuple[float, Any]:
        positions = 0
        for batch in following():
            inputs, labels = _given(batch)
            with torch.autocast("cpu", torch.bfloat16, enabled=job.startswith("bf16")):
                loss = loss_of(inputs, labels)
            loss.backward()
            adam.step()
            adam.zero_grad(set_to_none=True)
            positions += _positions(batch)
        return float(positions), {"parameters": sum(p.numel() for p in model.parameters()), "precision": job}

    return work


def _given(batch: Any) -> tuple[dict[str, Any], Any]:
    """A batch of ours as the peer takes it."""
    if hasattr(batch, "given"):
        return {"input_ids": batch.given}, batch.truth
    labels = torch.full_like(batch.ids, IGNORED)
    labels[batch.rows, batch.columns] = batch.truth
    if not batch.padded:
        return {"input_ids": batch.ids}, labels
    mask = torch.arange(batch.ids.shape[1]) < batch.lengths[:, None]
    return {"input_ids": batch.ids, "attention_mask": mask.long()}, labels


def contest(sizes: Sizes, text: Text, threads: int, rounds: int) -> dict[str, Any]:
    """Tokens read per second on both sides."""
    ours_, plain = Worker(ours, sizes, text, threads), Worker(theirs, sizes, text, threads, False)
    workers = {name: Worker(theirs, sizes, text, threads, True) if name.endswith("compiled") else plain for name in PEERS}
    jobs = {"qkv": (ours_, "auto")} | {name: (worker, name) for name, worker in workers.items()}
    speeds = in_turns(jobs, rounds)
    better = max(PEERS, key=lambda name: sorted(speeds[name])[len(speeds[name]) // 2])
    result = {**summary(speeds, "qkv", better), "against": better, "unit": "tokens read/s", "ours": ours_.do("auto")[1]}
    for worker in {ours_, *workers.values()}:
        worker.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--steps", type=int, default=3, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/language_speed.jsonl"))
    options = parser.parse_args()
    import transformers

    results = Results(options.results)
    with tempfile.TemporaryDirectory() as cache:
        text = Text(options.text, cache, options.steps)
        for sizes in SIZES:
            how = {"threads": options.threads, "transformers": transformers.__version__}
            results.measure(vars(sizes) | how, lambda sizes=sizes: contest(sizes, text, options.threads, options.rounds))


if __name__ == "__main__":
    main()
