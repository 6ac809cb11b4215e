"""The machine: where to compute, in what precision, and the few global switches of this package."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import platform
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qkv.error import QkvError, unknown
from qkv.spec.run import DEVICES, PRECISIONS

INT8_ENGINES = {"fbgemm", "x86", "onednn"}


@dataclass(frozen=True)
class Device:
    """Where tensors live, and the precision of the large matrix products."""

    device: torch.device
    precision: torch.dtype
    why: str


def pick(device: str = "auto", precision: str = "auto") -> Device:
    """The device of that name, and the precision: `auto` asks the hardware. Raises QkvError for a device that is not there."""
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if device == "cuda" and not torch.cuda.is_available():
        raise QkvError("--device cuda was asked for, but PyTorch sees no CUDA device here; use --device cpu")
    chosen = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    match precision:
        case "fp32":
            return Device(chosen, torch.float32, "fp32 was asked for")
        case "bf16":
            return Device(chosen, torch.bfloat16, "bf16 was asked for")
        case _ if chosen.type == "cuda":
            has = torch.cuda.is_bf16_supported(including_emulation=False)
            return Device(chosen, torch.bfloat16 if has else torch.float32, f"the GPU has {'' if has else 'no '}bf16 units")
        case _:
            gain = bf16_gain()
            fast = gain > 1.25
            return Device(
                chosen, torch.bfloat16 if fast else torch.float32, f"bf16 matrix products run {gain:.1f}x as fast as fp32 here"
            )


def bf16_gain(rows: int = 512, width: int = 256) -> float:
    """How many times faster a matrix product is in bf16 than in fp32 on this CPU, measured in some hundredths of a second.

    Flags do not tell: some processors have the instructions and gain nothing by them.
    """
    x, w = torch.randn(rows, width), torch.randn(4 * width, width)
    narrow = x.bfloat16(), w.bfloat16()
    return shortest(lambda: torch.nn.functional.linear(x, w)) / shortest(lambda: torch.nn.functional.linear(*narrow))


def shortest(work: Callable[[], object]) -> float:
    """Seconds of this thread, after a first time that does not count; not those of others that want the processor, too."""
    with side_by_side():
        times = []
        for _ in range(4):
            start = time.thread_time()
            work()
            times.append(time.thread_time() - start)
        return min(times[1:])


def packs(weight: Tensor) -> bool:
    """Whether `packed_weight` can lay out this weight: on a CPU, with oneDNN, in fp32, or in bf16 where it has that.

    Its operators are PyTorch's own affair (its compiler uses them): where they are gone we do without.
    """
    names = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    there = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)
    if not there or weight.device.type != "cpu":
        return False
    return weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def packed_weight(weight: Tensor) -> Tensor:
    """The weight as oneDNN lays it out for itself, of use to `packed_product` alone."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 256)


def packed_product(x: Tensor, packed: Tensor, offset: Tensor | None) -> Tensor:
    """x W^T + offset."""
    return torch.ops.mkldnn._linear_pointwise(x, packed, offset, "none", [], "")


def int8_weight(weight: Tensor, offset: Tensor | None) -> Any:
    """A weight in eight bits with a scale for each of its rows, as `int8_product` wants it. Raises QkvError where PyTorch was
    built without a library for such products."""
    if not has_int8():
        raise QkvError("this build of PyTorch has no products in eight bits: leave out --precision int8")
    weight = weight.detach().float()
    scales = _steps(weight).double()
    zeros = torch.zeros(len(weight), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch means to replace these tensors some day; a test holds them to the reference
        rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(rounded, None if offset is None else offset.detach().float())


def has_int8() -> bool:
    """Whether this build of PyTorch has products in eight bits."""
    return bool(INT8_ENGINES & set(torch.backends.quantized.supported_engines))


def _steps(weight: Tensor) -> Tensor:
    """What lies between two neighbours of the 255 numbers to which each row of a weight is rounded."""
    return (weight.abs().amax(1) / 127).clamp(min=1e-12)


def int8_distances(weight: Tensor) -> Tensor:
    """How far each row of a weight is from what `int8_weight` rounds it to."""
    weight = weight.detach().float()
    steps = _steps(weight)[:, None]
    return (weight - (weight / steps).round_().mul_(steps)).norm(dim=1)


def int8_step(x: Tensor) -> float:
    """How far `int8_product` rounds any number of x at most: half a step of its range, and as much again since 0 stays 0."""
    least, most = x.aminmax()
    return (max(0.0, most.item()) - min(0.0, least.item())) / (127 if saturates() else 255)


def int8_product(x: Tensor, packed: Any) -> Tensor:
    """x W^T + offset, with x rounded to eight bits by its own range, or to seven where eight would not be safe."""
    return torch.ops.quantized.linear_dynamic(x, packed, saturates())


@functools.cache
def saturates() -> bool:
    """Whether this CPU adds two products of eight bits in sixteen, which is too little for large ones (AVX2, and AVX-512 without
    VNNI, do): measured once."""
    ones = torch.ones(8, 64)
    return bool(((torch.ops.quantized.linear_dynamic(ones, int8_weight(ones, None)) - 64).abs() > 1).any())


@contextlib.contextmanager
def side_by_side() -> Iterator[None]:
    """For work that threads of our own do beside each other: within, an operator uses one thread alone.

    Small operators gain little by a second thread, and what lies between them gains nothing.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def prepare(threads: int = 0) -> None:
    """Set the global switches of a process that computes: threads, denormals as zero, and freed memory kept for the next tensor.

    Tensors of a step come and go at the same sizes; handing their pages back to the system each time costs a small model a
    fifth of its time.
    """
    if threads < 0:
        raise QkvError(f"--threads is a number of threads, or 0 for PyTorch's own choice, not {threads}")
    if threads:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    if platform.libc_ver()[0] == "glibc":
        mmap_threshold, trim_threshold, largest = -3, -1, 2**30
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, largest)
        libc.mallopt(trim_threshold, largest)


def peak_memory(where: torch.device) -> int:
    """The most bytes that this process has had so far: of a GPU what its tensors took, on a CPU all that it holds."""
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where)
    status = Path("/proc/self/status")
    if status.is_file():  # Linux counts among the resources of a process those of the one that began it
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def build_of_machine() -> dict[str, str | int]:
    """What must be equal for two runs to agree to the last bit: the build of PyTorch, the instruction set and the threads."""
    return {
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
