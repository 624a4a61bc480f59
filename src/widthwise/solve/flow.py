"""Integration of flows, by Diffrax."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from widthwise.solve.precision import float64

TOLERANCE = 1e-8  # absolute and relative, of each integration step
MOST_STEPS = 1_000_000


class FlowError(ValueError):
    """A flow that the integrator cannot follow."""


def integrate(
    field: Callable, start, times: Sequence[float], argument=None, *, tolerance: float = TOLERANCE
):
    """The solution of y' = field(argument, y) from `start` at time 0, at each of `times`.

    >>> at = integrate(lambda rate, y: -rate * y, np.array([1.0]), (0.0, 1.0), 2.0)
    >>> at.round(6).tolist()
    [[1.0], [0.135335]]

    Args:
        field: (argument, y) -> dy/dt in JAX.
        start: array or tree of arrays.
        times: finite, ascending, not negative.
        argument: arrays that the field reads.
        tolerance: of every step of the adaptive fifth-order method.

    Raises FlowError if a million steps do not reach the last time.
    """
    import diffrax  # seconds to import, and few learners flow

    with float64():
        start, argument = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), (start, argument))
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, argument: field(argument, y)),
            diffrax.Tsit5(),
            t0=0.0,
            t1=max(float(times[-1]), 1e-12),
            dt0=None,
            y0=start,
            args=argument,
            saveat=diffrax.SaveAt(ts=jnp.minimum(jnp.asarray(times, float), times[-1])),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            max_steps=MOST_STEPS,
            throw=False,
        )
        if found.result != diffrax.RESULTS.successful:
            raise FlowError(
                f"The flow does not reach time {times[-1]:g} in {MOST_STEPS:,} steps: ask for a "
                "shorter time."
            )
        return jax.tree.map(np.asarray, found.ys)
