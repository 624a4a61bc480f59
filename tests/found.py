"""What the modules offer, found by looking there, so that a newcomer is tested unasked."""

import dataclasses
import inspect

import jax.numpy as jnp

from widthwise import network
from widthwise.network import nonlinear
from widthwise.network.layer import AbstractLayer
from widthwise.network.nonlinear import AbstractNonlinearity


def concrete(module, base: type) -> list[type]:
    """The concrete classes of a kind that a module holds, by name."""
    found = [x for _, x in sorted(vars(module).items()) if inspect.isclass(x)]
    return [x for x in found if issubclass(x, base) and not inspect.isabstract(x)]


def made(kind: type, **settings):
    """The class with its defaults, or with some of them changed."""
    try:
        return kind(**settings)
    except TypeError as error:
        raise TypeError(
            f"{kind.__name__} cannot be made ({error}): every field needs a default."
        ) from None


def moved(kind: type):
    """The class with every number of its fields at another value, so that none is ignored."""
    usual = {field.name: field.default for field in dataclasses.fields(kind)}
    numbers = {name: x for name, x in usual.items() if isinstance(x, float)}
    return made(kind, **{name: 0.1 + 1.2 * x for name, x in numbers.items()})


NONLINEARITIES = [made(kind) for kind in concrete(nonlinear, AbstractNonlinearity)]
MOVED = [moved(type(f)) for f in NONLINEARITIES]
LAYERS = [
    made(kind)
    for kind in concrete(network, AbstractLayer)
    if kind not in (network.Chain, network.Sum)
]


def clipped(h):
    return jnp.clip(h, -1.0, 0.5)


def shrunk(h):
    """0 around 0, where small inputs stay."""
    return h - jnp.clip(h, -0.5, 0.5)


CLIPPED = network.Elementwise(fn=clipped, kinks=(-1.0, 0.5), degree=100)
VARIANTS = [
    network.LeakyRelu(0.3),
    network.LeakyRelu(-0.5),
    network.Erf(0.7, 1.3, 0.2),
    network.Sin(1.5, 0.7, 0.4),
    network.Cos(0.5, 1.2, -1.0),
    network.Rbf(0.3),
    network.Monomial(5),
    network.Hermite(3),
    network.Polynomial((0.5, -1.0, 0.3, 0.2)),
    network.RectifiedMonomial(0),
    network.RectifiedMonomial(3),
    CLIPPED,
    network.Elementwise(fn=shrunk, kinks=(-0.5, 0.5)),
    *(f for f, usual in zip(MOVED, NONLINEARITIES, strict=True) if f != usual),
]
EVERYONE = NONLINEARITIES + VARIANTS


def input_scale(f) -> float:
    """Inputs times this keep two layers of f finite: exp of exp overflows at usual sizes."""
    return 0.1 if isinstance(f, network.Exp) else 1.0
