"""The well-known picture: cities and states, in the two main components of their vectors."""

import dataclasses
import io
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from widthwise.tasks.words.analogies import Question, places
from widthwise.tasks.words.embeddings import Embeddings

SECTION = "city-in-state"  # of the questions: city, state, city, state
BASES = 200  # that a tie is averaged over
TIE = 1e-6  # relative difference of eigenvalues that count as equal


class Plane(NamedTuple):
    """Words in two components."""

    title: str
    words: tuple[str, ...]
    is_state: Bool[np.ndarray, " m"]
    points: Float[np.ndarray, "m 2"]
    accuracy: float  # of the nearest centroid, each word left out in turn
    tied: bool  # whether the components were drawn, as no two of them are the main ones


@dataclasses.dataclass(frozen=True)
class CitiesAndStates:
    """Principal components of the vectors of cities and states, and whether they tell them apart.

    The names are single words, those of the questions' section `city-in-state` that are in the
    vocabulary; a name of both kinds is left out. Vectors are scaled to length 1 and centred. The
    number is the accuracy of the nearest of the two centroids on the two components, each word
    left out of its centroid in turn.

    In the kernel limit U does not move, and its rows are orthonormal (U = I): after centring, all
    their principal components have the same variance, so any orthonormal basis of them will do.
    One is drawn, by the seed. It knows nothing of the words, hence chance, 50 %: a word lies
    nearer to either centroid equally often. The accuracy shown is the mean over 200 such bases.

    Args:
        questions: that name cities and states.
        seed: of the basis, where components are tied.
    """

    source: ClassVar[str] = "yang2021feature, Figure 1"
    questions: tuple[Question, ...]
    seed: int = 0

    def names(self, words: tuple[str, ...]) -> tuple[list[int], list[int]]:
        """Places of the cities and of the states in a vocabulary."""
        known = places(words)
        lines = [q.words for q in self.questions if q.section == SECTION]
        cities = {line[k].upper() for line in lines for k in (0, 2)}
        states = {line[k].upper() for line in lines for k in (1, 3)}
        return (
            sorted(known[name] for name in cities - states if name in known),
            sorted(known[name] for name in states - cities if name in known),
        )

    def __call__(self, embeddings: Embeddings, title: str) -> Plane | None:
        """None where the vocabulary has fewer than two cities or two states."""
        cities, states = self.names(embeddings.words)
        if min(len(cities), len(states)) < 2:
            return None
        rows = np.array(cities + states)
        vectors = embeddings.vectors[rows] / embeddings.norms[rows, None]
        return self._plane(title, embeddings.words, rows, len(cities), vectors)

    def kernel_limit(self, words: tuple[str, ...], title: str) -> Plane | None:
        """The same of U = I, which is never held as a matrix of all words."""
        cities, states = self.names(words)
        if min(len(cities), len(states)) < 2:
            return None
        rows = np.array(cities + states)
        return self._plane(title, words, rows, len(cities), np.eye(len(rows)))

    def _plane(self, title, words, rows, cities, vectors) -> Plane:
        is_state = np.arange(len(rows)) >= cities
        points, tied = components(vectors, self.seed)
        bases = BASES if tied else 1
        drawn = (components(vectors, self.seed + k)[0] for k in range(bases))
        accuracy = float(np.mean([nearest_centroid(x, is_state) for x in drawn]))
        return Plane(title, tuple(words[k] for k in rows), is_state, points, accuracy, tied)


def components(
    vectors: Float[np.ndarray, "m n"], seed: int
) -> tuple[Float[np.ndarray, "m 2"], bool]:
    """The two principal components of rows, and whether they had to be drawn among equals.

    >>> points, tied = components(np.array([[0.0, 0], [2, 0], [0, 1], [2, 1]]), seed=0)
    >>> np.abs(points).round(6).tolist(), tied
    ([[1.0, 0.5], [1.0, 0.5], [1.0, 0.5], [1.0, 0.5]], False)
    """
    centred = np.asarray(vectors, np.float64)
    centred = centred - centred.mean(axis=0)
    variances, axes = np.linalg.eigh(centred @ centred.T)
    variances, axes = variances[::-1], axes[:, ::-1].copy()
    rng = np.random.default_rng(seed)
    tied, low = False, 0
    while low < 2:
        high = int((variances > variances[low] - TIE * variances[0]).sum())
        if high - low > 1:  # any rotation of these axes is as good
            axes[:, low:high] @= np.linalg.qr(rng.normal(size=(high - low, high - low)))[0]
            tied = tied or high > 2
        low = high
    return axes[:, :2] * np.sqrt(np.maximum(variances[:2], 0)), tied


def nearest_centroid(points: Float[np.ndarray, "m 2"], is_state: Bool[np.ndarray, " m"]) -> float:
    """How many points lie nearer to the mean of their own kind, themselves left out.

    >>> nearest_centroid(np.array([[0.0, 0], [0, 1], [5, 0], [5, 1]]), np.arange(4) > 1)
    1.0
    """
    distances = []
    for kind in (False, True):
        own = is_state == kind
        # a point's own kind is averaged without it
        total, count = points[own].sum(axis=0), own.sum()
        means = (total - points * own[:, None]) / (count - own)[:, None]
        distances.append(np.linalg.norm(points - means, axis=1))
    return float(np.mean((distances[0] > distances[1]) == is_state))


def draw(planes: list[Plane], path: Path) -> None:
    """Writes one figure with a panel for each plane, as SVG or PNG by the ending."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from widthwise.store import write_whole

    figure = Figure(figsize=(5.2 * len(planes), 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    for number, plane in enumerate(planes, start=1):
        axes = figure.add_subplot(1, len(planes), number)
        axes.set_title(f"{plane.title}: {plane.accuracy:.0%}", loc="left")
        for kind, label, marker in ((False, "cities", "o"), (True, "states", "^")):
            axes.scatter(*plane.points[plane.is_state == kind].T, marker=marker, label=label)
        for word, point in zip(plane.words, plane.points, strict=True):
            axes.annotate(word, (point[0], point[1]), fontsize=7, alpha=0.7)
        axes.set(xlabel="first component", ylabel="second component")
    figure.axes[0].legend(loc="best")
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:], dpi=120)
    write_whole(path, content.getvalue())
