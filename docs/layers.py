"""Writes the tables of docs/layers.md from the modules: `python docs/layers.py`.

Every cell is read from a class or found by trying it. Nothing here knows one layer by name.
"""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp

from widthwise import lookup
from widthwise.finite import FiniteNetwork
from widthwise.network import (
    AbstractDual,
    AbstractLayer,
    AbstractQuadrature,
    AbstractSmooth,
    Chain,
    Conv,
    Dense,
    Erf,
    Flatten,
    Graph,
    Readout,
    Relu,
    Signal,
    Size,
    Unflatten,
)
from widthwise.network.begin import begin, input_signal, trial_inputs
from widthwise.network.build import is_weight, specify, tangents
from widthwise.network.reader import AbstractReader
from widthwise.network.signal import Pairs
from widthwise.reporting.cite import bibliography
from widthwise.scaling import NTK
from widthwise.solve import float64

PAGE = Path(__file__).with_name("layers.md")
BEGIN, END = "<!-- made by docs/layers.py -->", "<!-- made until here -->"
WIDE, ANY_RANK = Size(times=1), range(4)
VARIANCES = (1.0, 4.0)  # at which quadrature states its error

GRID = Unflatten((2, 2)) >> Conv((2, 2))
ROWS = Unflatten((3,), channels=5)
GRAPH = ROWS >> Graph()
SEQUENCE = Unflatten((4,)) >> Conv((2,))
# Networks with a place for one layer: it is tried in each until one takes it, here and in the
# contract tests, which hold a finite network of that kind against its limit.
PLACES = (
    lambda layer: Dense() >> layer >> Readout(),
    lambda layer: Dense() >> Erf() >> layer,
    lambda layer: GRID >> layer >> Readout(),
    lambda layer: GRID >> layer >> Flatten() >> Readout(),
    lambda layer: SEQUENCE >> layer >> Flatten() >> Readout(),
    lambda layer: layer >> Conv() >> Flatten() >> Readout(),
    lambda layer: ROWS >> layer >> Dense() >> Erf() >> Flatten() >> Readout(),
    lambda layer: GRAPH >> Dense() >> Relu() >> layer >> Dense() >> Flatten() >> Readout(),
)


@functools.cache
def placed(layer: AbstractLayer) -> Chain:
    """A network that holds the layer where it may stand."""
    for place in PLACES:
        try:
            net = place(layer)
            specify(net, trial_inputs(net), 1)
            return net
        except ValueError:
            pass
    raise SystemExit(f"{layer!r} stands in none of PLACES: add a network that holds it.")


@functools.cache
def tensors(layer: AbstractLayer) -> int:
    """How many the layer owns."""
    net = placed(layer)
    incoming = input_signal(trial_inputs(net))
    for before in net.layers[: net.layers.index(layer)]:
        incoming = before.signal(incoming)
    return len(jax.tree.leaves(layer.weights(incoming), is_leaf=is_weight))


@functools.cache
def traced(layer: AbstractLayer):
    """The limit's program for the layer in a network, and None; or None, and why there is none."""
    net = placed(layer)
    inputs = trial_inputs(net)
    shape = (inputs,) if isinstance(inputs, int) else inputs
    with float64():
        own = tangents(net, inputs, NTK())

        def program(x):
            found = net.kernel(own, begin(net, x))
            return jax.tree.leaves(found)

        try:
            return jax.make_jaxpr(program)(jnp.ones((3, *shape))), None
        except (ValueError, NotImplementedError) as refusal:
            return None, str(refusal)


def nngp(layer: AbstractLayer) -> str:
    refusal = traced(layer)[1]
    return f"none: {refusal}" if refusal else _kind(layer, 0)


def ntk(layer: AbstractLayer) -> str:
    if traced(layer)[1]:
        return "none"
    if not isinstance(layer, AbstractDual) or isinstance(layer, AbstractQuadrature):
        return _kind(layer, 1)
    with float64():
        if not any(layer.slope(1.0, jnp.asarray(c), 1.0) for c in (0.3, 1.0)):
            return "0: no gradient passes"
    if isinstance(layer, AbstractSmooth):
        return "derivative of the dual"
    return _kind(layer, 1)


def _kind(layer: AbstractLayer, which: int) -> str:
    """In what manner; `which` is 0 for the NNGP and 1 for the tangent kernel."""
    if isinstance(layer, AbstractQuadrature):
        first, second = (_bound(_error(layer, variance)[which]) for variance in VARIANCES)
        return f"quadrature, error below {first}, {second}"
    if isinstance(layer, AbstractDual):
        return "closed form"
    if tensors(layer):
        return "closed form" + (", own share" if which else "")
    return "exact map"


@functools.cache
def _error(layer: AbstractQuadrature, variance: float) -> tuple[float, float]:
    return layer.error(variance)


def _bound(error: float) -> str:
    """The next power of ten."""
    for exponent in range(-12, 1):
        if error <= 10.0**exponent:
            return f"1e{exponent}"
    raise SystemExit(f"Quadrature states the error {error}: it is of no use.")


def finite(layer: AbstractLayer) -> str:
    """Whether a finite network with it can be drawn and run; shapes only, nothing is computed."""
    network, count = placed(layer), tensors(layer)
    inputs = trial_inputs(network)
    shape = (inputs,) if isinstance(inputs, int) else inputs
    drawn = FiniteNetwork(network, 4, inputs, 2, NTK())

    def run(key, x):
        return drawn.apply(drawn.draw(key), x)

    jax.eval_shape(run, jax.random.key(0), jnp.ones((3, *shape), "float32"))
    return f"draws {count}, applies" if count else "applies"


def device(layer: AbstractLayer) -> str:
    """JAX programs without calls back to the host run wherever JAX does."""
    program = traced(layer)[0]
    if program is None:
        return "—"
    return "JAX, and the host" if "callback" in str(program) else "JAX, any device"


def pairs(layer: AbstractLayer) -> str:
    if layer.needs(Pairs.SAME) is Pairs.ALL:
        return "all"
    return "same" if layer.needs(Pairs.ALL) is Pairs.SAME else "as what follows"


def reads(layer: AbstractLayer) -> str:
    """What may arrive, found by sending it."""
    if isinstance(layer, AbstractReader):
        return "rows of data"

    def takes(gaussian: bool, size: Size = WIDE, ranks=ANY_RANK) -> bool:
        return any(_takes(layer, Signal(size, gaussian, (None,) * rank)) for rank in ranks)

    what = "vectors, grids"
    if not takes(True, ranks=ANY_RANK[1:]):
        what = "a vector"
    elif not takes(True, ranks=(0,)):
        what = "a grid"
    if not takes(False):
        return f"{what}, Gaussian"
    return what if takes(False, Size(fixed=2)) else f"{what}, not the data"


def _takes(layer: AbstractLayer, incoming: Signal) -> bool:
    try:
        layer.signal(incoming)
    except ValueError:
        return False
    return True


def source(layer: AbstractLayer) -> str:
    found = []
    for part in getattr(layer, "source", "").split(";"):
        key, _, where = part.strip().partition(", ")
        if key:
            found.append(f"{_short(bibliography()[key])}, {where}")
    return "; ".join(found) or "—"


def _short(entry: dict[str, str]) -> str:
    families = [name.partition(",")[0] for name in re.split(r"\s+and\s+", entry["author"])]
    who = " and ".join(families) if len(families) < 3 else f"{families[0]} et al."
    text = f"{who} {entry['year']}"
    return f"[{text}](https://arxiv.org/abs/{entry['eprint']})" if "eprint" in entry else text


COLUMNS = {
    "reads": reads,
    "NNGP": nngp,
    "NTK": ntk,
    "finite": finite,
    "runs on": device,
    "pairs": pairs,
    "source": source,
}


def table(layers: dict[str, AbstractLayer]) -> str:
    """A row a layer; columns that say the same of all are told in a sentence above."""
    found = {head: [read(x) for x in layers.values()] for head, read in COLUMNS.items()}
    alike = {head: cells[0] for head, cells in found.items() if len(set(cells)) == 1}
    apart = {head: cells for head, cells in found.items() if head not in alike}
    lines = [f"| layer | {' | '.join(apart)} |", "|---" * (1 + len(apart)) + "|"]
    for (name, layer), *cells in zip(layers.items(), *apart.values(), strict=True):
        place = f"{type(layer).__module__}.{name}"
        lines.append(f"| {' | '.join((f'[`{name}`](api/network.md#{place})', *cells))} |")
    sentence = "; ".join(f"*{head}*: {cell}" for head, cell in alike.items())
    return (f"For all of them {sentence}.\n\n" if alike else "") + "\n".join(lines)


def made() -> str:
    """The part of the page that the modules decide."""
    layers = {name: kind() for name, kind in sorted(lookup.layers().items())}
    duals = {name: x for name, x in layers.items() if isinstance(x, AbstractDual)}
    others = {name: x for name, x in layers.items() if name not in duals}
    return "\n\n".join(
        ("", f"### {len(others)} layers", table(others),
         f"### {len(duals)} nonlinearities", table(duals), "")
    )  # fmt: skip


def rewritten(text: str) -> str:
    """The page with its tables as the modules are now."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return before + BEGIN + made() + END + after


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
