"""What learns word vectors, at any width."""

import dataclasses
from typing import ClassVar

from widthwise import settings as checks


@dataclasses.dataclass(frozen=True)
class BagOfWords:
    """Continuous bag of words with negative sampling: the words around predict the one between.

    >>> BagOfWords(epochs=15)
    BagOfWords(window=8, negative=25, sample=0.0001, rate=0.05, weight_decay=0.001, epochs=15, ...)

    h is the mean of the context's rows U; the word and its negatives have rows C, with
    C = 0 at the start. One position moves, target after target, e += g C and C <- (1 - rate
    weight_decay) C + g h with g = rate (label - sigmoid <h, C>), then each row of the context,
    U <- (1 - rate weight_decay) U + e / |context|. At width n, U starts uniform with variance
    1 / n; at width infinity it starts as the identity. All widths share these settings. Yang and
    Hu trained text8 with 15 epochs and a minimum count of 5, fil9 with 5 and 10.

    Args:
        window: words on either side, at most; drawn anew for every position, from 1.
        negative: negatives a position, drawn with chance ~ count^0.75; one that is the word itself
            is left out.
        sample: threshold of sub-sampling, as a frequency.
        rate: step size at the start; falls with the words read to 1e-4 of it, and is set every
            500,000 words read.
        weight_decay: of a row, whenever it is touched, times the step size.
        epochs: times that the text is read.
        sentence: tokens that survive sub-sampling between two ends of all windows.

    Raises ValueError or TypeError for settings out of range.
    """

    source: ClassVar[str] = (
        "yang2021feature, Word2Vec experiments; mikolov2013efficient, section 3.1; "
        "mikolov2013distributed, sections 2.2 and 2.3"
    )
    window: int = 8
    negative: int = 25
    sample: float = 1e-4
    rate: float = 0.05
    weight_decay: float = 0.001
    epochs: int = 1
    sentence: int = 1000

    def __post_init__(self):
        checks.whole(self, "window")
        checks.whole(self, "negative")
        checks.whole(self, "epochs")
        checks.whole(self, "sentence", low=2)
        checks.number(self, "sample", above=0)
        checks.number(self, "rate", above=0)
        checks.number(self, "weight_decay", low=0)
