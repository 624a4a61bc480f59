"""A trained pi-limit: outputs at new rows, and the kernel of its features."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from widthwise.limits.pi import build, engine
from widthwise.network.layer import AbstractLayer
from widthwise.network.names import layer_names
from widthwise.network.stack import stack_of
from widthwise.run import AbstractState, Prediction, check_columns
from widthwise.solve import float64

ROWS = 256  # rows a forward pass holds at once


@dataclasses.dataclass(frozen=True)
class PiState(AbstractState):
    """A trained pi-limit; `weights` are its engine's state in NumPy arrays."""

    network: AbstractLayer
    rules: engine.Rules
    weights: engine.State
    dtype: str

    def predict(self, x: Float[np.ndarray, "m d"], covariance: bool) -> Prediction:
        check_columns(x, len(self.weights.first))
        return Prediction(
            self._awake(lambda state: outputs_of(self.rules, state, x, self.dtype)),
            None, "one draw of the initial weights that all widths share",
        )  # fmt: skip

    def features(self, x: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m r"]:
        """g of the last hidden layer: its pre-activations are Z.g, Z standard Gaussian."""
        last = len(self.rules.layers) - 1
        return self._awake(lambda state: carried(self.rules, state, x, last, self.dtype))

    def feature_kernel(
        self,
        x1: Float[np.ndarray, "n d"],
        x2: Float[np.ndarray, "m d"] | None = None,
        *,
        normalized: bool = False,
    ) -> Float[np.ndarray, "n m"]:
        """The kernel of the learned features, E f(Z.g) f(Z.g'); `normalized` for g of length 1.

        >>> from sklearn.svm import SVC
        >>> SVC(kernel=run.state.feature_kernel).fit(x, labels)  # doctest: +SKIP
        """
        given = [self.features(np.asarray(x)) for x in ((x1,) if x2 is None else (x1, x2))]
        if normalized:
            given = [_unit(g) for g in given]
        pairs = self.rules.pairs[-1]
        with float64():
            (one, size), (two, other) = (
                pairs.stored(jnp.asarray(g)) for g in (given[0], given[-1])
            )
            lengths = [jnp.sum(points**2, axis=1) for points in (two, one)]
            return np.asarray(size[:, None] * pairs.value(one @ two.T, *lengths) * other)

    def _awake(self, function):
        if self.dtype == "float64":
            with float64():
                return function(build.awake(self.weights))
        return function(build.awake(self.weights))


def _unit(g):
    return g / np.maximum(np.linalg.norm(g, axis=1, keepdims=True), 1e-300)


def carried(rules, state, x, layers: int, dtype: str) -> Float[np.ndarray, "m k"]:
    """The last g of rows carried through so many layers, in float64."""
    tiles = [
        engine.forward(rules, state, jnp.asarray(x[i : i + ROWS], dtype), layers).g[-1]
        for i in range(0, max(len(x), 1), ROWS)
    ]
    return np.concatenate([np.asarray(tile, np.float64) for tile in tiles])


def outputs_of(rules, state, x, dtype: str) -> Float[np.ndarray, "m k"]:
    """Outputs at any number of rows."""
    return carried(rules, state, x, len(rules.layers), dtype)


def kernels_of(network, rules, state, x, dtype: str) -> dict[str, Float[np.ndarray, "q q"]]:
    """The layers' kernels at probe rows, by the layers' names."""
    g = engine.forward(rules, state, jnp.asarray(x, dtype)).g
    names, stack, found = dict(layer_names(network)), stack_of(network), {}
    for layer, nonlinearity in enumerate(stack.between):
        position = stack.affine[layer] + (nonlinearity is not None)
        if position in names:
            kernel = engine.feature_kernel(rules.pairs[layer], g[layer])
            found[names[position]] = np.asarray(kernel, np.float64)
    return found
