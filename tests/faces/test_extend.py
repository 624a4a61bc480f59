"""The worked examples of docs/extend.md work."""

import doctest
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from gaussian import expectation
from test_docstrings import names_in_examples

from widthwise.kernels import kernel_matrix
from widthwise.network import Conv, Dense, Flatten, Readout, Unflatten
from widthwise.network.nonlinear import quadrature, smooth
from widthwise.network.pointwise import AbstractQuadrature

PAGE = Path(__file__).parents[2] / "docs" / "extend.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
HOMES = {"Bump": smooth, "Softplus": quadrature}  # the files that the page appends to


def made(name: str) -> type:
    """The class as the page writes it, its docstring's examples run."""
    [text] = [block for block in BLOCKS if f"class {name}(" in block]
    module = types.ModuleType(f"extend_{name.lower()}")
    vars(module).update(vars(HOMES[name]) if name in HOMES else {})
    module.__name__ = f"extend_{name.lower()}"
    sys.modules[module.__name__] = module
    exec(compile(text, str(PAGE), "exec"), vars(module))
    kind = vars(module)[name]
    names = names_in_examples() | {name: kind}
    for test in doctest.DocTestFinder().find(kind, name, module=False, globs=names):
        said: list[str] = []
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
        assert not runner.run(test, out=said.append).failed, "".join(said)
    return kind


@pytest.mark.parametrize("name", ["Bump", "Softplus"])
def test_nonlinearities(name, double):
    f = made(name)()
    bound = f.error(1.5) if isinstance(f, AbstractQuadrature) else (0.0, 0.0)
    assert max(bound) < 1e-9
    np.testing.assert_allclose(f.dual(1.0, 0.3, 1.5), expectation(f, 1.0, 0.3, 1.5), rtol=1e-8)


def test_layers(rng):
    scale, unbiased, differences = map(made, ("Scale", "Unbiased", "Differences"))
    x = rng.normal(size=(3, 5))
    end = Readout(weight_variance=1.0)

    def nngp(net):
        return kernel_matrix(net, x).nngp

    np.testing.assert_allclose(nngp(Dense() >> scale(0.1) >> end), 0.01 * nngp(Dense() >> end))
    np.testing.assert_allclose(nngp(unbiased(2.0) >> end), nngp(Dense() >> end))
    sequence = Unflatten((5,)) >> Conv((1,), weight_variance=1.0) >> differences()
    np.testing.assert_allclose(
        nngp(sequence >> Flatten() >> end), np.diff(x) @ np.diff(x).T / 4, rtol=1e-12
    )
    with pytest.raises(ValueError, match="two positions"):
        _ = Unflatten((1,)) >> differences()
