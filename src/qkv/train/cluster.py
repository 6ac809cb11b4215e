"""Many machines: the workers of a dask cluster, as an executor."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

from qkv import device as machine
from qkv.error import QkvError

CONNECT = 20  # seconds


def by_dask(address: str) -> Callable[[], Executor]:
    """The workers of a cluster, by the address of its dask scheduler. All of its machines must find the text where it is here."""

    def made() -> Executor:
        try:
            from distributed import Client
        except ImportError:
            raise QkvError("a cluster needs dask: pip install 'qkv[cluster]'") from None
        try:
            client = Client(address, timeout=CONNECT)
        except (OSError, ValueError) as error:
            raise QkvError(f"there is no dask scheduler at {address}: {error}") from None

        client.register_worker_callbacks(partial(machine.prepare, 1))  # of every worker, also of one that comes later
        return _Cluster(client)

    return made


class _Cluster(Executor):
    """The executor of a client of dask, which takes its leave when it is shut down."""

    def __init__(self, client: Any) -> None:
        self._client, self._executor = client, client.get_executor(pure=False)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._executor.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._executor.shutdown(wait)
        self._client.close()
