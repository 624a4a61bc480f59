"""Solves of large systems: factors in half a square, preconditioned gradients, quadratures."""

import numpy as np
import pytest
import scipy.linalg

from widthwise.solve import (
    AbstractSymmetric,
    NotSolvable,
    Nystrom,
    PackedFactor,
    conjugate_gradients,
    quadrature,
)


class Whole(AbstractSymmetric):
    """A matrix at hand."""

    def __init__(self, matrix, edge):
        self.size, self.edge, self._matrix = len(matrix), edge, matrix

    def tile(self, a, b):
        return self._matrix[a, b]


def matrix(rows, decay=1.5, seed=0):
    """Positive definite, with eigenvalues that fall like a power, as those of kernels do."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(rows, rows)))[0]
    values = rows * np.arange(1, rows + 1) ** -decay
    return (basis * values) @ basis.T


@pytest.fixture
def blocks(monkeypatch):
    monkeypatch.setattr(PackedFactor, "edge", 16)


@pytest.mark.parametrize("rows", [1, 16, 17, 100])
def test_packed_factor_is_cholesky(blocks, rows):
    whole = matrix(rows).astype(np.float32)
    square = whole.copy()
    square[np.tril_indices(rows, -1)] = np.nan  # what is below is not read
    found = PackedFactor(square)
    assert found.factor(0.5) == 0.0
    lower = scipy.linalg.cholesky(whole + 0.5 * np.eye(rows), lower=True)
    np.testing.assert_allclose(np.tril(square), lower, atol=1e-4 * lower.max())
    above = np.triu_indices(rows, 1)
    np.testing.assert_array_equal(square[above], whole[above])
    right = np.random.default_rng(1).normal(size=(rows, 3))
    wanted = whole.astype(float) @ right
    np.testing.assert_allclose(found.product(right), wanted, rtol=1e-6, atol=1e-9)


def test_packed_factor_preconditions(blocks):
    whole = matrix(200).astype(np.float32)
    found, right = PackedFactor(whole.copy()), np.random.default_rng(1).normal(size=(200, 4))
    found.factor(1e-3)
    solved = conjugate_gradients(lambda v: found.product(v) + 1e-3 * v, found.solve, right)
    assert solved.steps <= 6
    exact = scipy.linalg.solve(found.product(np.eye(200)) + 1e-3 * np.eye(200), right)
    np.testing.assert_allclose(solved.value, exact, rtol=1e-6, atol=1e-6 * abs(exact).max())


def test_packed_factor_takes_the_least_jitter_that_works(blocks):
    rng = np.random.default_rng(0)
    few = rng.normal(size=(60, 5))
    whole = (few @ few.T).astype(np.float32)  # of rank 5
    found = PackedFactor(whole.copy())
    jitter = found.factor(0.0)
    assert 0 < jitter <= 1e-5
    right = whole.astype(float) @ rng.normal(size=(60, 2))
    solved = conjugate_gradients(
        lambda v: found.product(v) + 1e-4 * v, found.solve, right, tolerance=1e-6
    )
    np.testing.assert_allclose(found.product(solved.value), right, atol=1e-4 * abs(right).max())
    with pytest.raises(NotSolvable, match="add noise"):
        PackedFactor(-np.eye(20, dtype=np.float32)).factor(0.0)


def test_landmarks_precondition():
    whole, noise = matrix(400, decay=2.0), 1e-2
    right = np.random.default_rng(1).normal(size=(400, 2))

    def product(v):
        return whole @ v + noise * v

    plain = conjugate_gradients(product, lambda v: v, right)
    few = np.random.default_rng(2).choice(400, 100, replace=False)
    landmarks = Nystrom(whole[:, few], whole[np.ix_(few, few)], noise)
    better = conjugate_gradients(product, landmarks.solve, right)
    assert better.steps < plain.steps / 2
    exact = scipy.linalg.solve(whole + noise * np.eye(400), right)
    for found in (plain, better):
        np.testing.assert_allclose(found.value, exact, atol=1e-6 * abs(exact).max())


def test_columns_stop_by_themselves():
    whole = np.diag([1.0, 2.0, 3.0])
    right = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    seen = []

    def product(v):
        seen.append(v.shape[1])
        return whole @ v

    found = conjugate_gradients(product, lambda v: v, right)
    assert seen == [2, 1, 1] and found.steps == 3
    np.testing.assert_allclose(whole @ found.value, right, atol=1e-12)


def test_what_does_not_converge_is_told():
    rng = np.random.default_rng(0)
    wild = np.diag(np.geomspace(1e-16, 1.0, 500))
    with pytest.raises(NotSolvable, match="residual"):
        conjugate_gradients(lambda v: wild @ v, lambda v: v, rng.normal(size=(500, 1)))


@pytest.mark.parametrize("function", [np.log, np.exp, lambda x: 1 / x])
def test_quadrature(function):
    values = np.linspace(1.0, 4.0, 60)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(60, 60)))[0]
    whole = (basis * values) @ basis.T
    start = np.random.default_rng(1).normal(size=(60, 3))
    exact = np.sum((basis.T @ start) ** 2 * function(values)[:, None], axis=0)
    found = quadrature(lambda v: whole @ v, start, 12)
    np.testing.assert_allclose(found.of(function), exact, rtol=1e-8)


def test_quadrature_ends_with_the_space():
    start = np.array([[1.0], [1.0], [0.0]])
    found = quadrature(lambda v: np.diag([1.0, 2.0, 3.0]) @ v, start, 3)
    assert found.of(np.log)[0] == pytest.approx(np.log(2.0))


def test_product_is_the_same_for_any_threads(monkeypatch):
    whole = matrix(150)
    right = np.random.default_rng(1).normal(size=(150, 70))
    found = Whole(whole, edge=16).product(right)
    np.testing.assert_allclose(found, whole @ right, rtol=1e-12, atol=1e-12)
    from widthwise.solve import symmetric

    monkeypatch.setattr(symmetric, "cores", lambda: 5)
    np.testing.assert_array_equal(Whole(whole, edge=16).product(right), found)
    shares = []
    Whole(whole, edge=16).product(right, shares.append)
    assert sum(shares) == pytest.approx(1.0)
