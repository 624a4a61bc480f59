"""The pi-limit against trajectories of its authors' implementation, in float64 to 1e-9."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from slowly import cases

from widthwise.limits.descent import loss_slope
from widthwise.limits.pi import engine, rows
from widthwise.limits.pi.pairs import DualPairs, ReluPairs
from widthwise.limits.pi.predict import outputs_of
from widthwise.network import Relu
from widthwise.problem import loss_value

FOLDER = Path(__file__).parent / "rich"
CASES = json.loads((FOLDER / "pi.json").read_text())


def digits():
    raw, labels = load_digits(return_X_y=True)
    scaled = raw / 16
    return (scaled - scaled.mean()) / scaled.std(), np.eye(10)[labels]


def coded(case: dict[str, Any], one_hot):
    return one_hot - 0.1 if case["loss"] == "mse" else one_hot


def rules_of(case: dict[str, Any], pairs: Any = None) -> engine.Rules:
    """The authors' settings: first and last multipliers stand before their layers' biases too."""
    depth, layers = case["L"], []
    for number in range(1, depth + 2):
        first, last = number == 1, number == depth + 1
        gain = case["first_alpha"] if first else case["last_alpha"] if last else 1.0
        rate = case["first_mult"] if first else case["last_mult"] if last else 1.0
        layers.append(engine.LayerRule(gain, case["bias_alpha"] * gain, rate, case["bias_mult"]))
    return engine.Rules(
        tuple(layers), (pairs or ReluPairs(),) * depth, case["momentum"], case["wd"], "tensor"
    )


def start_of(case: dict[str, Any], known) -> engine.State:
    depth = case["L"]
    operators = [
        rows.operator_of(
            known[f"init_A{k}"], known[f"init_B{k}"], known[f"init_w{k}"],
            0 * known[f"init_w{k}"], "float64",
        )
        for k in range(2, depth + 2)
    ]  # fmt: skip
    sizes = [case["r"]] * depth + [10]
    biases = [
        known[f"init_b{k}"] if f"init_b{k}" in known else np.zeros(sizes[k - 1])
        for k in range(1, depth + 2)
    ]
    return engine.state_of(jnp.asarray(known["init_A1"]), operators, map(jnp.asarray, biases))


def close(found, expected):
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-9, atol=1e-9)


def slope_of(case, outputs, targets):
    if case["loss"] == "xent":
        return loss_slope(outputs, targets, "cross_entropy") / len(outputs)
    return 2 * (outputs - targets) / outputs.size  # a mean over outputs too


def loss_of(case, outputs, targets):
    if case["loss"] == "xent":
        return loss_value(outputs, targets, "cross_entropy")
    return np.mean((np.asarray(outputs) - targets) ** 2)


@pytest.mark.parametrize("name", cases(["L1_mse"], ["L2_xent_cifarlike"]))
def test_trajectory(name, double):
    case, known, (x, y) = CASES[name], np.load(FOLDER / f"pi_{name}.npz"), digits()
    y = coded(case, y)
    rules, state, own = rules_of(case), start_of(case, known), []
    every = len(known["loss"]) // len(known["out"])
    names = [f"weight.{k}" for k in range(1, case["L"] + 2)]
    names += [f"bias.{k}" for k in range(1, case["L"] + 2)]
    logged = [names.index(str(key)) for key in known["gradnorm_keys"]]
    test = iter(known["test_out"])
    for step, own in enumerate(known["idx"]):
        if step % 10 == 0:
            close(outputs_of(rules, state, x[1000:1128], "float64"), next(test))
        carried = engine.forward(rules, state, jnp.asarray(x[own]))
        outputs = carried.g[-1]
        close(loss_of(case, outputs, y[own]), known["loss"][step])
        if step % every == 0:
            close(outputs, known["out"][step // every])
        gradient = engine.backward(rules, state, carried, slope_of(case, outputs, y[own]))
        bound = known["clip"][step] if case["clip"] else np.inf
        gradient, norms = engine.clipped(rules, gradient, bound)
        close(np.array(norms)[logged], known["gradnorm"][step])
        state = engine.step(rules, state, gradient, float(known["lr"][step]))
    close(outputs_of(rules, state, x[1000:1128], "float64"), next(test))
    close(state.first, known["final_A1"])
    for number, operator in enumerate(state.operators, start=2):
        a, b, w, _ = rows.gathered(operator)
        close(w, known[f"final_w{number}"])
        close(a[-len(own) :], known[f"final_A{number}_tail"])
        close(b[-len(own) :], known[f"final_B{number}_tail"])
    for number, bias in enumerate(state.biases, start=1):
        if f"final_b{number}" in known:
            close(bias, known[f"final_b{number}"])
    g = engine.forward(rules, state, jnp.asarray(x[1000:1032])).g[-2]
    close(engine.feature_kernel(rules.pairs[-1], g), known["final_feature_kernel"])


def test_the_general_way_agrees_with_relu(double):
    """ReLU through its dual, as any other nonlinearity goes: rows are then not normalised."""
    case, known, (x, y) = CASES["L1_mse"], np.load(FOLDER / "pi_L1_mse.npz"), digits()
    y = coded(case, y)
    rules, state = rules_of(case, DualPairs(Relu())), start_of(case, known)
    for step, own in enumerate(known["idx"][:12]):
        carried = engine.forward(rules, state, jnp.asarray(x[own]))
        close(carried.g[-1], known["out"][step])
        slope = slope_of(case, carried.g[-1], y[own])
        gradient = engine.backward(rules, state, carried, slope)
        state = engine.step(rules, state, gradient, float(known["lr"][step]))
