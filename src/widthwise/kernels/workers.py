"""Who computes tiles: threads of this process, or the workers of a Dask cluster."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from threadpoolctl import threadpool_limits

from widthwise.memory import cores

DEATHS = 100  # of workers under one tile, before it counts as the cause of them


@contextlib.contextmanager
def workers(cluster: str | None) -> Iterator[tuple[Executor, int]]:
    """An executor, and how many tiles it computes at a time.

    Args:
        cluster: "tcp://HOST:PORT" of a Dask scheduler, "local" for one process a core here, or
            None for threads.

    Raises ValueError for a scheduler that does not answer, ImportError without Dask.
    """
    if cluster is None:
        # A tile a thread: with threads inside products too, there would be more than cores.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(cores()) as pool:
            yield pool, cores()
        return
    try:
        from dask import config
        from distributed import Client, LocalCluster
    except ImportError:
        raise ImportError(
            "A cluster needs Dask: pip install 'widthwise[cluster]', or leave the cluster out."
        ) from None
    with contextlib.ExitStack() as stack:
        stack.enter_context(config.set({"distributed.scheduler.allowed-failures": DEATHS}))
        address = cluster
        if cluster == "local":
            made = LocalCluster(
                n_workers=cores(), threads_per_worker=1, dashboard_address=":0", silence_logs=50
            )
            stack.enter_context(made)
            address = str(made.scheduler_address)
        try:
            client: Any = stack.enter_context(Client(address, timeout="10s"))
        except (OSError, ValueError):
            raise ValueError(
                f"No Dask scheduler answers at {cluster!r}: start one with `dask scheduler`, or "
                "write 'local'."
            ) from None
        count = sum(client.nthreads().values())
        yield client.get_executor(pure=False), max(count, 1)
