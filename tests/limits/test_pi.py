"""The pi-limit: real projected networks of growing width, and its own consistency."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from widthwise.finite import FiniteNetwork, train
from widthwise.learner import GradientDescent
from widthwise.limits import EmptyCell, PiLimit, Work, lookup
from widthwise.limits.pi import compiled, compress, rows
from widthwise.limits.pi.pairs import DualPairs, ReluPairs
from widthwise.measure.power import fit_power
from widthwise.network import Dense, Erf, Identity, Readout, Relu, Tanh
from widthwise.problem import Diverged, Problem
from widthwise.projection import Projection
from widthwise.run import Trajectory
from widthwise.scaling import ABC, NTK, MeanField, MuP, Richness
from widthwise.schedule import Cosine, Drop

DEEP = Dense(bias_multiplier=0.3) >> Relu() >> Dense(bias_multiplier=0.2) >> Relu() >> Readout()
EXACT = Projection(6, storage="float64")


def problem(loss="mse", rows=24, tests=8):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows + tests, 5)) + 0.3
    y = np.stack([x[:, 0] + np.sin(x[:, 1]), x[:, 2] * x[:, 3], x[:, 1]], axis=1)
    if loss == "cross_entropy":
        y = np.eye(3)[np.argmax(x[:, :3], axis=1)]
    kind = "regression" if loss == "mse" else "classification"
    return Problem(x[:rows], y[:rows], x[rows:], y[rows:], 0.0, kind)


def learner_of(**settings) -> GradientDescent:
    usual: dict[str, Any] = dict(lr=0.3, steps=16, batch_size=6, projection=EXACT)
    return GradientDescent(**(usual | settings))


def limit_of(net, learner, posed=None, scaling=None, work=None):
    limit = lookup(net, scaling or MuP(), learner)
    assert isinstance(limit, PiLimit)
    prepared = limit.prepare(posed or problem(learner.loss), order=3, logs=4)
    return prepared.train(None, work or Work())


def finite_of(net, learner, width, seed, posed=None, scaling=None) -> Trajectory:
    posed = posed or problem(learner.loss)
    size = FiniteNetwork(net, width, 5, 3, scaling or MuP())
    return train(size, posed, learner, lr=learner.lr, seed=seed, order=3, logs=4)[1]


@pytest.fixture(scope="module")
def usual():
    """The limit that most are held against."""
    return limit_of(DEEP, learner_of())


def rms(x) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def exponent_of(net, learner, widths, seeds: int) -> float:
    """Of the gaps to the limit at the test rows, which the widest must have nearly closed."""
    limit = limit_of(net, learner).trajectory
    gaps = [
        np.mean([
            rms(finite_of(net, learner, n, s).predictions[-1] - limit.predictions[-1])
            for s in range(seeds)
        ])
        for n in widths
    ]  # fmt: skip
    moved = rms(limit.predictions[-1] - limit.predictions[0])
    assert gaps[1] < 0.25 * moved, "the limit must be nearer than standing still"
    return float(np.log(gaps[1] / gaps[0]) / np.log(widths[1] / widths[0]))


CASES = {
    "relu": (DEEP, {}),
    "momentum": (DEEP, dict(loss="cross_entropy", momentum=0.6, weight_decay=0.05)),
    "clip": (DEEP, dict(clip=0.3, schedule=Cosine())),
    "global clip": (DEEP, dict(clip=0.6, clip_by="global", schedule=Drop(0.5, 0.3))),
    "erf": (
        Dense(lr_multiplier=0.5) >> Erf() >> Dense() >> Tanh() >> Readout(lr_multiplier=2.0), {}
    ),
    "all together": (
        DEEP,
        dict(
            loss="cross_entropy", momentum=0.6, weight_decay=0.05, clip=0.6, clip_by="global",
            schedule=Drop(0.5, 0.3),
        ),
    ),
    "linear": (Dense() >> Dense() >> Relu() >> Readout(bias_variance=0.1), {}),
}  # fmt: skip


@pytest.mark.slow
def test_networks_approach_it():
    net, settings = CASES["all together"]
    assert -0.7 < exponent_of(net, learner_of(**settings), (128, 1024), 6) < -0.3


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_wide_networks_approach_it(case):
    net, settings = CASES[case]
    assert -0.65 < exponent_of(net, learner_of(**settings), (256, 4096), 8) < -0.35


def test_kernels_approach_it(usual):
    limit, finite = usual.trajectory.kernels, finite_of(DEEP, learner_of(), 4096, 0).kernels
    assert list(limit) == list(finite)
    for name, kernels in limit.items():
        np.testing.assert_allclose(finite[name], kernels, atol=0.15 * np.abs(kernels).max())


@pytest.mark.parametrize(
    "scaling",
    [
        MeanField(),
        Richness(0.0),
        ABC(a=(-0.5, 0, 0.5), b=(0.5, 0.5, 0.5), c=(0, 0, 0)),
    ],
)
def test_equal_scalings_have_one_limit(scaling, usual):
    """ABC starts all weights alike and has no multipliers: the variances that make it equal."""
    net, expected = DEEP, usual
    if isinstance(scaling, ABC):
        net = Dense(weight_variance=5.0) >> Relu() >> Readout(weight_variance=1.0)
        expected = limit_of(net, learner_of())
    found = limit_of(net, learner_of(), scaling=scaling).trajectory.predictions
    np.testing.assert_allclose(found, expected.trajectory.predictions, rtol=1e-9, atol=1e-12)


def test_richness_is_a_step_size_and_a_readout():
    """gamma0 divides the output and multiplies step sizes by its square."""
    net = Dense(bias_multiplier=0) >> Relu() >> Readout(bias_multiplier=0)
    found = limit_of(net, learner_of(lr=0.1), scaling=MuP(gamma0=2.0)).trajectory
    smaller = Dense(bias_multiplier=0) >> Relu() >> Readout(0.25 / 4, bias_multiplier=0)
    expected = limit_of(smaller, learner_of(lr=0.4)).trajectory
    np.testing.assert_allclose(found.predictions, expected.predictions, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_float32_is_enough_and_bfloat16_nearly():
    exact = limit_of(DEEP, learner_of()).trajectory.predictions[-1]
    cases: Any = (("float32", 1e-5), ("bfloat16", 2e-2))
    for storage, tolerance in cases:
        learner = learner_of(projection=Projection(6, storage=storage))
        found = limit_of(DEEP, learner).trajectory.predictions[-1]
        assert rms(found - exact) < tolerance * rms(exact)


def test_a_projection_onto_as_many_directions_changes_no_gradient():
    """Widths up to the rank are ordinary networks from their projected start."""
    wide = learner_of(projection=Projection(40, storage="float64"))
    narrow = FiniteNetwork(DEEP, 32, 5, 3, MuP())
    projected = train(narrow, problem(), wide, lr=0.3, seed=0, order=3, logs=4)[1]
    assert projected.train_loss[-1] < projected.train_loss[0]


def test_predictions_at_new_rows_and_the_feature_kernel(usual):
    trained, posed = usual, problem()
    state: Any = trained.state
    found = state.predict(posed.x_test, False)
    np.testing.assert_allclose(found.value, trained.trajectory.predictions[-1], rtol=1e-9)
    kernel = state.feature_kernel(posed.x_test)
    logged = trained.trajectory.kernels["2 Relu()"][-1]
    np.testing.assert_allclose(kernel, logged, rtol=1e-9)
    cross = state.feature_kernel(posed.x_test, posed.x_test[:3])
    np.testing.assert_allclose(cross, kernel[:, :3], rtol=1e-9)


def test_full_batches_larger_than_a_block(monkeypatch):
    """Rows of one step that straddle blocks, or fill several."""
    expected = limit_of(DEEP, learner_of(batch_size=None)).trajectory.predictions
    monkeypatch.setattr(rows, "SMALLEST", 4)
    monkeypatch.setattr(rows, "CAPACITY", 8)
    found = limit_of(DEEP, learner_of(batch_size=None)).trajectory.predictions
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_a_budget_that_nothing_exceeds_changes_nothing(momentum, usual):
    exact = (limit_of(DEEP, learner_of(momentum=momentum)) if momentum else usual).trajectory
    roomy = Projection(6, rows=500, storage="float64")
    found = limit_of(DEEP, learner_of(momentum=momentum, projection=roomy)).trajectory
    np.testing.assert_allclose(found.predictions, exact.predictions, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_the_error_falls_with_the_budget_and_is_told(momentum):
    settings = dict(momentum=momentum, weight_decay=0.01, steps=40)
    exact = limit_of(DEEP, learner_of(**settings)).trajectory.predictions[-1]
    gaps = []
    for budget in (24, 72):
        projection = Projection(6, rows=budget, storage="float64")
        trained = limit_of(DEEP, learner_of(**settings, projection=projection))
        assert "projected onto" in trained.notes[0] and "error" in trained.notes[0]
        gaps.append(rms(trained.trajectory.predictions[-1] - exact) / rms(exact))
    assert gaps[1] < 0.5 * gaps[0] and gaps[1] < 0.03


def test_a_tolerance_keeps_as_many_rows_as_it_needs():
    projection = Projection(6, tolerance=0.02, storage="float64")
    trained = limit_of(DEEP, learner_of(steps=60, projection=projection))
    exact = limit_of(DEEP, learner_of(steps=60)).trajectory.predictions[-1]
    assert rms(trained.trajectory.predictions[-1] - exact) < 0.1 * rms(exact)


def random_operator(pairs, seed=0, count=60, rank=5, outputs=4):
    rng = np.random.default_rng(seed)
    points, coefficients = rng.normal(size=(count, rank)), rng.normal(size=(count, outputs))
    if isinstance(pairs, ReluPairs):
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    weights, speeds = rng.normal(size=count), rng.normal(size=count)
    return rows.operator_of(coefficients, points, weights, speeds, "float64")


@pytest.mark.parametrize("pairs", [ReluPairs(), DualPairs(Erf())], ids=["relu", "erf"])
def test_projection_is_the_nearest_operator(pairs, double, rng):
    """Against the least-squares problem in the kernel's geometry, whole and dense."""
    operator = random_operator(pairs)
    a, b, w, _ = rows.gathered(operator)
    packed, told = compress.compress(pairs, operator, 20, 0)
    kernel = np.asarray(compress._tile(pairs, b, b))
    kept = rows.gathered(packed)
    at = [int(np.argmin(np.sum((b - point) ** 2, axis=1))) for point in kept.b]
    assert len(set(at)) == 20
    best = np.linalg.solve(kernel[np.ix_(at, at)], kernel[at] @ (w[:, None] * a))
    np.testing.assert_allclose(kept.w[:, None] * kept.a, best, rtol=1e-5, atol=1e-7)
    lost = w[:, None] * a
    size = np.sum(lost * (kernel @ lost))
    lost[at] -= best
    error = np.sqrt(np.sum(lost * (kernel @ lost)) / size)
    assert told == (60, 20, pytest.approx(error, rel=0.15))  # measured at sampled rows


def test_velocities_are_projected_too(double):
    pairs = ReluPairs()
    operator = random_operator(pairs)
    packed, _ = compress.compress(pairs, operator, 120, 0, speed=0.5)
    a, b, w, v = rows.gathered(packed)
    old = rows.gathered(operator)
    order = [int(np.argmin(np.sum((old.b - point) ** 2, axis=1))) for point in b[:60]]
    np.testing.assert_allclose((w[:, None] * a)[:60], (old.w[:, None] * old.a)[order], atol=1e-6)
    np.testing.assert_allclose((v[:, None] * a)[60:], (old.v[:, None] * old.a)[order], atol=1e-6)
    assert not w[60:].any() and not v[:60].any()


def test_it_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    """Stopped in the middle, and in the middle of a write: bitwise the same end."""
    settings = dict(steps=30, momentum=0.5, projection=Projection(6, rows=30))
    whole = limit_of(DEEP, learner_of(**settings))
    monkeypatch.setattr("widthwise.limits.pi.limit.SECONDS", 0.0)
    path, calls = tmp_path / "run.part", []

    def stop(share):
        calls.append(share)
        if len(calls) == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        limit_of(DEEP, learner_of(**settings), work=Work(path, stop))
    assert path.exists()
    told = []
    resumed = limit_of(DEEP, learner_of(**settings), work=Work(path, told.append))
    assert len(told) < 20, "it did not begin again"
    for found, expected in zip(resumed.trajectory[:4], whole.trajectory[:4], strict=True):
        np.testing.assert_array_equal(found, expected)
    x = problem().x_test
    np.testing.assert_array_equal(
        resumed.state.predict(x, False).value, whole.state.predict(x, False).value
    )
    path.write_bytes(path.read_bytes()[:-10])
    again = limit_of(DEEP, learner_of(**settings), work=Work(path))
    np.testing.assert_array_equal(again.trajectory.predictions, whole.trajectory.predictions)


def test_refusals():
    with pytest.raises(EmptyCell, match="not ridge"):
        lookup(DEEP, MuP(), learner_of(ridge=0.1))
    residual = Dense() >> (Identity() + (Relu() >> Dense())) >> Relu() >> Readout()
    with pytest.raises(EmptyCell, match="plain stacks"):
        lookup(residual, MuP(), learner_of())
    with pytest.raises(EmptyCell, match="use MuP"):
        lookup(DEEP, NTK(), learner_of())
    with pytest.raises(EmptyCell, match="projection=400"):
        lookup(DEEP, MuP(), GradientDescent(batch_size=2, ridge=0.1))
    with pytest.raises(Diverged, match="lower lr"):
        limit_of(DEEP, learner_of(lr=60.0, steps=40))
    enormous = learner_of(projection=Projection(400), steps=10**8)
    with pytest.raises(MemoryError, match="rows=5000"):
        lookup(DEEP, MuP(), enormous).check(problem())
    with pytest.raises(ValueError, match="holds"):
        lookup(DEEP, MuP(), learner_of(projection=Projection(400, memory="1MB"))).check(problem())


def test_settings_of_a_projection(unchecked):
    assert GradientDescent(projection=7).projection == Projection(7)
    cases: Any = (
        (dict(rank=0), "at least 1"),
        (dict(rows=5, memory="1GB"), "not both"),
        (dict(memory="many"), "is no size"),
        (dict(tolerance=2.0), "share"),
        (dict(storage="int8"), "bfloat16"),
    )
    for settings, words in cases:
        with pytest.raises(ValueError, match=words):
            Projection(**settings)


@pytest.mark.slow
def test_digits_at_widths_to_4096():
    """The exponent over widths 64 to 4096, and the reference's gaps from its own start."""
    import widthwise as ww

    data = ww.data.load("digits")
    net = Dense() >> Relu() >> Dense() >> Relu() >> Readout()
    learner = GradientDescent(lr=0.5, steps=60, batch_size=64, projection=32)
    family = ww.Family(net, MuP(), learner, (64, 256, 1024, 4096, ww.inf), seeds=4)
    runs = family.train(data, progress=False)
    limit = runs.limit
    assert limit is not None
    gaps = np.array([
        [rms(r.trajectory.predictions[-1] - limit.trajectory.predictions[-1])
         for r in runs.at(width)]
        for width in runs.widths
    ])  # fmt: skip
    law = fit_power(np.array(runs.widths, float), gaps)
    assert -0.65 < law.exponent < -0.35


@pytest.mark.parametrize(
    ("count", "rank", "outputs", "inputs"),
    [(1, 8, 8, 1), (70, 200, 10, 8), (2500, 37, 5, 100), (5000, 40, 40, 33)],
)
def test_the_compiled_pass_over_rows_agrees_with_the_general_one(
    count, rank, outputs, inputs, monkeypatch
):
    rng = np.random.default_rng(count)
    points = rng.normal(size=(count, rank))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    a, w = rng.normal(size=(count, outputs)) / count, rng.random(count).astype("float32")
    operator = rows.operator_of(a, points, w, 0 * w, "float32")
    g = rng.normal(size=(inputs, rank)).astype("float32")
    g[inputs // 2] *= inputs == 1  # an input of zeros has no direction
    slope = rng.normal(size=(inputs, outputs)).astype("float32")

    def there_and_back():
        out, products = rows.apply(ReluPairs(), operator, jnp.asarray(g))
        return out, rows.pull_back(
            ReluPairs(), operator, jnp.asarray(g), products, jnp.asarray(slope)
        )

    found = there_and_back()
    monkeypatch.setattr(compiled, "serves", lambda *_: False)
    for one, other in zip(found, there_and_back(), strict=True):
        assert rms(np.asarray(one) - other) < 3e-6 * rms(other)


def test_the_compiled_pass_gives_the_same_for_any_number_of_threads(monkeypatch):
    rng = np.random.default_rng(0)
    points, a = rng.normal(size=(5000, 16)), rng.normal(size=(5000, 3))
    w = np.ones(5000, "float32")
    operator = rows.operator_of(a, points, w, 0 * w, "float32")
    g = jnp.asarray(rng.normal(size=(20, 16)), "float32")
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(compiled.numba, "get_num_threads", lambda threads=threads: threads)
        found.append(np.asarray(rows.apply(ReluPairs(), operator, g)[0]))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
