"""`qkv models`, `qkv verify`, `qkv doctor`."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated

import typer

from qkv.error import QkvFailure

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
EXTRAS = ("babel", "tensorboard", "ctranslate2", "transformers", "sentencepiece", "distributed", "scipy")


def models(
    vocabulary: Annotated[int, typer.Option(help="Entries of one vocabulary for both sides.")] = 37000,
    length: Annotated[int, typer.Option(help="Tokens of a sentence, for FLOPs and cache.")] = 32,
    json: Json = False,
) -> None:
    """Every named model, counted from its description: nothing is built."""
    from qkv.papers.catalogue import CATALOGUE, named
    from qkv.spec.count import cache_bytes, flops, parameters
    from qkv.spec.model import DecoderOnly, EncoderDecoder, EncoderOnly, Joint

    shapes = {EncoderDecoder: "encoder-decoder", EncoderOnly: "encoder-only", DecoderOnly: "decoder-only"}
    rows = []
    for name, entry in CATALOGUE.items():
        spec = named(name, Joint(vocabulary))
        counts = {
            "parameters": parameters(spec),
            "flops_per_token": flops(spec, length),
            "cache_bytes": cache_bytes(spec, length),
        }
        rows.append({"model": name, "shape": shapes[type(spec)], **counts, "paper": entry.paper})
    if json:
        print(json_.dumps(rows, indent=1))
        return
    print(
        f"{'model':<19}  {'shape':<15} {'parameters':>12} {'FLOPs/token':>12} {'cache bytes':>12}  paper      (V = {vocabulary}, "
        f"{length} tokens)"
    )
    for row in rows:
        print(
            f"{row['model']:<19}  {row['shape']:<15} {row['parameters'] / 1e6:>11.2f}M {row['flops_per_token'] / 1e6:>11.1f}M "
            f"{row['cache_bytes']:>12,}  {row['paper']}"
        )


def verify(run: Annotated[Path, typer.Argument(help="The run folder.")]) -> None:
    """Check every byte of a run's model, tokenizers, run.toml and checkpoints against what was written."""
    from qkv.error import QkvError
    from qkv.store import load
    from qkv.train.checkpoint import MANIFEST, all_of, damage

    if not run.is_dir():
        raise QkvError(f"there is no run folder {run}")
    problems = []
    for path in all_of(run):
        problem = damage(path)
        print(problem or f"{path}: as it was written")
        problems += [problem] if problem else []
    if (run / MANIFEST).is_file():
        problem = damage(run, frozenset(("model.json", "model.safetensors")))
        if not problem:
            load(run)
        print(problem or f"{run}: the final model is as it was written, and loads")
        problems += [problem] if problem else []
    elif not all_of(run):
        raise QkvError(f"{run} holds no checkpoint and no finished model")
    else:
        print(f"{run}: not finished yet")
    if problems:
        raise QkvFailure(f"damaged parts of {run}: {len(problems)}")


def doctor(json: Json = False) -> None:
    """What this machine is, what it can do, and what is missing."""
    import importlib.metadata
    import importlib.util
    import os
    import platform

    import torch

    from qkv.data.corpus import default_cache
    from qkv.device import bf16_gain, pick

    facts: dict[str, object] = {
        "qkv": importlib.metadata.version("qkv"),
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    for package in ("torch", "tokenizers", "safetensors", "sacrebleu", "numpy"):
        facts[package] = importlib.metadata.version(package)
    facts["cores"] = os.cpu_count() or 0
    facts["threads"] = torch.get_num_threads()
    facts["instructions"] = torch.backends.cpu.get_cpu_capability()
    facts["bf16 matrix products"] = f"{bf16_gain():.2f}x the speed of fp32 on this CPU"
    facts["CUDA"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    chosen = pick()
    facts["training would use"] = f"{chosen.device}, {str(chosen.precision).removeprefix('torch.')}: {chosen.why}"
    cache = default_cache()
    facts["encoded text is kept in"] = str(cache)
    facts["QKV_DATA"] = os.environ.get("QKV_DATA", "not set")
    for extra in EXTRAS:
        facts[extra] = importlib.metadata.version(extra) if importlib.util.find_spec(extra) else "not installed"
    if json:
        print(json_.dumps(facts, indent=1))
        return
    for name, fact in facts.items():
        print(f"{name:<24} {fact}")
