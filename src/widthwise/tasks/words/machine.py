"""What carries the state through the events: threads on a CPU; on an accelerator, batches."""

import abc
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from widthwise.memory import cores
from widthwise.settings import whole
from widthwise.tasks.words.barrier import marks
from widthwise.tasks.words.events import Events
from widthwise.tasks.words.kernel import Columns, follow
from widthwise.tasks.words.settings import BagOfWords

NO_TABLE = np.empty(0, np.float32)


class State(NamedTuple):
    """Both tables; columns past the width are zero and stay so."""

    inputs: Float[np.ndarray, "V padded"]  # U
    outputs: Float[np.ndarray, "V padded"]  # C


def start(vocabulary: int, width: float, seed: int) -> State:
    """U and C before training: at width infinity the identity and zero.

    >>> start(3, float("inf"), seed=0).inputs[:, :3].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]

    The limit lives in the span of the initial rows, which are orthonormal at infinite width: in
    that basis U starts as the identity. C starts at zero, so that no further columns are needed.
    """
    columns = vocabulary if width == float("inf") else int(width)
    inputs = np.zeros((vocabulary, Columns.of(columns).padded), np.float32)
    if width == float("inf"):
        np.fill_diagonal(inputs, 1)
    else:
        uniform = np.random.default_rng([seed, columns]).random((vocabulary, columns), np.float32)
        inputs[:, :columns] = (2 * uniform - 1) * np.float32((3 / columns) ** 0.5)
    return State(inputs, np.zeros_like(inputs))


class AbstractMachine(abc.ABC):
    """Learns events in their order."""

    @property
    @abc.abstractmethod
    def rule(self) -> str:
        """What the result depends on, beside settings and events; part of a checkpoint's name."""

    @abc.abstractmethod
    def begin(self, state: State) -> Any:
        """The state as this machine holds it."""

    @abc.abstractmethod
    def follow(self, held: Any, events: Events, settings: BagOfWords) -> Any:
        """The state after these events. What was given is used up."""

    @abc.abstractmethod
    def state(self, held: Any) -> State:
        """The state in main memory, for reading only."""


@dataclasses.dataclass(frozen=True)
class Threads(AbstractMachine):
    """The sequential rule on the CPU; the same result for any number of threads.

    >>> Threads(threads=2).rule
    'sequential'

    Args:
        threads: each owns a slice of the columns of every row, 64 of them or more, so that small
            widths use fewer; as many as there are cores unless given.
        table: for tests against word2vec.c alone: its table of the sigmoid.
    """

    threads: int | None = None
    table: Float[np.ndarray, " bins"] | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self):
        if self.threads is not None:
            whole(self, "threads")

    @property
    def rule(self) -> str:
        return "sequential"

    def begin(self, state: State) -> State:
        return state

    def follow(self, held: State, events: Events, settings: BagOfWords) -> State:
        columns = Columns.of(held.inputs.shape[1])
        threads = min(self.threads or cores(), columns.slices)
        parts = np.empty((2, columns.slices, events.targets.shape[1] + 1))
        met = marks(threads)
        table = NO_TABLE if self.table is None else self.table

        def work(thread: int) -> None:
            share = columns.share(thread, threads)
            follow(*held, *events, settings.weight_decay, table, parts, met, thread, share,
                   columns.slice)  # fmt: skip

        if threads == 1:
            work(0)
        else:
            with ThreadPoolExecutor(threads) as pool:  # one task each: they wait for one another
                list(pool.map(work, range(threads)))
        return held

    def state(self, held: State) -> State:
        return held
