"""What the run of a finite network's posterior logs."""

import numpy as np
from jaxtyping import Float

from widthwise.problem import Problem, loss_value
from widthwise.run import AbstractState, Trajectory


def trajectory_of(
    state: AbstractState, problem: Problem, kernels: dict[str, Float[np.ndarray, "2 q q"]]
) -> Trajectory:
    """From the prior's mean, which is zero, to the posterior's, in one step."""
    count = len(problem.x_train)
    both = state.predict(np.concatenate([problem.x_train, problem.x_test]), False).value
    means = [np.zeros_like(both), both]
    train = [loss_value(f[:count], problem.y_train, "mse") for f in means]
    test = [loss_value(f[count:], problem.y_test, "mse") for f in means]
    predictions = np.stack([f[count:] for f in means])
    return Trajectory(np.array([0.0, 1.0]), np.array(train), np.array(test), predictions, kernels)
