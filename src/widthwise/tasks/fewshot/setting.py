"""What is learned, and with which numbers."""

import dataclasses
import math
from typing import NamedTuple

from widthwise import settings


@dataclasses.dataclass(frozen=True)
class FewShot:
    """First-order MAML on tasks of few drawings, as it was published for Omniglot.

    >>> FewShot(epochs=5).tasks
    32

    Args:
        way: classes of a task.
        shot: drawings of each class to learn from.
        queries: drawings of each class that the task is judged by.
        tasks: of a meta-batch, their gradients summed.
        epochs, batches: epochs of this many meta-batches; after each epoch the network is judged on
            validation tasks, and the best one is kept.
        inner_lr, inner_steps: the steps of gradient descent that adapt to a task.
        clip: bound on the norm of the summed gradient.
        validation_tasks, test_tasks: how many tasks judge.
        test_steps: steps of adaptation at test.
        split: seed of the choice of classes for training, validation and test.
    """

    way: int = 5
    shot: int = 1
    queries: int = 1
    tasks: int = 32
    epochs: int = 100
    batches: int = 100
    inner_lr: float = 0.4
    inner_steps: int = 1
    clip: float = 0.5
    validation_tasks: int = 1000
    test_tasks: int = 10_000
    test_steps: int = 20
    split: int = 0

    def __post_init__(self):
        settings.whole(self, "way", low=2)
        for name in ("shot", "queries", "tasks", "epochs", "batches", "inner_steps"):
            settings.whole(self, name)
        for name in ("validation_tasks", "test_tasks", "test_steps"):
            settings.whole(self, name)
        settings.whole(self, "split", low=0)
        settings.number(self, "inner_lr", above=0)
        settings.number(self, "clip", above=0)


class Numbers(NamedTuple):
    """What was tuned for each width: the outer step size, the sizes of initial weights (their
    standard deviations times the root of the width), and the factor of the hidden bias."""

    meta_lr: float
    input_size: float
    readout_size: float
    bias: float


# Yang and Hu 2021, the settings published with their code. One column serves 512 and more.
PUBLISHED: dict[float, Numbers] = {
    2: Numbers(0.05, 0.5, 0.5, 2.0),
    8: Numbers(0.1, 0.5, 0.25, 1.0),
    32: Numbers(0.4, 1.0, 0.125, 0.5),
    128: Numbers(0.1, 1.0, 0.125, 1.0),
    512: Numbers(0.1, 1.0, 1 / 32, 1.0),
    math.inf: Numbers(0.1, 1.0, 1 / 32, 1.0),
}


def numbers_for(width: float) -> Numbers:
    """The published numbers of the nearest width, in ratio.

    >>> numbers_for(40) == PUBLISHED[32], numbers_for(4096) == PUBLISHED[512]
    (True, True)
    """
    if width == math.inf:
        return PUBLISHED[math.inf]
    finite = [known for known in PUBLISHED if known != math.inf]
    return PUBLISHED[min(finite, key=lambda known: abs(math.log(width / known)))]
