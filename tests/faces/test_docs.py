"""The documentation's examples run, and print what the pages say."""

import doctest
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from widthwise.kernels import kernel_matrix

DOCS = Path(__file__).parents[2] / "docs"
ORACLE = Path(__file__).parents[1] / "oracle"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SKIPPED = {"extend.md"}  # its examples stand inside classes: see test_extend.py
PAGES = [
    page
    for page in sorted(DOCS.rglob("*.md"))
    if ">>> " in page.read_text(encoding="utf-8") and page.name not in SKIPPED
]


@functools.cache
def run(page: Path) -> dict[str, Any]:
    """The names that a page's examples leave."""
    test = doctest.DocTestParser().get_doctest(
        page.read_text(encoding="utf-8"), {}, page.name, str(page), 0
    )
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    results = runner.run(test, out=said.append, clear_globs=False)
    assert results.attempted and not results.failed, "".join(said)
    return test.globs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_page_s_examples_run(page, unchecked):
    run(page)


def test_pages_that_are_mostly_examples_are_found():
    names = {str(page.relative_to(DOCS)) for page in PAGES}
    assert {"errors.md", "neural_tangents.md", "api/sklearn.md"} <= names


def test_neural_tangents_networks_have_its_kernels(unchecked):
    """The networks on the page are those of the reference values, in its terms."""
    names = run(DOCS / "neural_tangents.md")
    for name, file in {
        "net": "lazy/fc_relu_d3.npz",
        "images": "lazy_grids/conv_valid_gap.npz",
        "residual": "lazy/res_sum_fc.npz",
    }.items():
        stored = np.load(ORACLE / file)
        found = kernel_matrix(names[name], stored["x1"], stored["x2"])
        np.testing.assert_allclose(found.nngp, stored["nngp_12"], rtol=1e-8)
        np.testing.assert_allclose(found.ntk, stored["ntk_12"], rtol=1e-8)

    stored = np.load(ORACLE / "predict.npz")
    affine, dense, readout, erf = (names[name] for name in ("affine", "Dense", "Readout", "Erf"))
    hidden = affine(dense, 1.5, 0.1)
    network = hidden >> erf() >> hidden >> erf() >> affine(readout, 1.0, 0.1)
    rows = network, stored["x_train"], stored["y_train"]
    for trained, reference in (
        (names["ensemble"](*rows, 0.5, 1e-3, 50.0), "ensemble_ntk_t50"),
        (names["ensemble"](*rows, 0.5, 1e-3, np.inf), "gp_ntk"),
        (names["process"](*rows, 1e-3, "nngp"), "gp_nngp"),
        (names["process"](*rows, 1e-3, "ntk"), "gp_ntkgp"),
    ):
        mean, covariance, _ = trained.predict(stored["x_test"], covariance=True)
        np.testing.assert_allclose(mean, stored[f"{reference}_mean"], rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(covariance, stored[f"{reference}_cov"], rtol=1e-7, atol=1e-9)
