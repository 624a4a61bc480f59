"""The table (scaling, learner) -> limit. The module is the registry."""

import dataclasses

import jax

from widthwise.learner import AbstractLearner
from widthwise.limits.base import AbstractLimit, Elsewhere, EmptyCell
from widthwise.lookup import offered
from widthwise.network.begin import trial_inputs
from widthwise.network.build import is_weight, specify
from widthwise.network.layer import AbstractLayer, AbstractWhole
from widthwise.scaling import AbstractScaling, Role


def all_limits() -> tuple[type[AbstractLimit], ...]:
    """Every limit that `widthwise.limits` offers."""
    from widthwise import limits

    return tuple(offered(limits, AbstractLimit).values())


def depth_of(network: AbstractLayer) -> int:
    """The number of hidden layers a scaling is classified for: growing weight matrices."""
    specs = jax.tree.leaves(specify(network, trial_inputs(network), None), is_leaf=is_weight)
    return max(1, sum(w.role in (Role.INPUT, Role.HIDDEN) and w.fan_in is not None for w in specs))


def regime(network: AbstractLayer, scaling: AbstractScaling, learner: AbstractLearner) -> str:
    """Which row: "lazy", "rich", or "trivial" where nothing moves in the limit.

    Raises ValueError, naming what blows up, for an unstable scaling.
    """
    found = scaling.classify(depth_of(network), entrywise=learner.entrywise)
    if found.stable and found.trivial:
        return "trivial"  # finite networks train; the limit stands still
    if not found.stable:
        raise ValueError(f"{scaling!r} has no limit: it is {found}; try NTK() or MuP().")
    return "rich" if found.regime == "feature learning" else "lazy"


def check_rules(network: AbstractLayer, row: str) -> None:
    """Raises EmptyCell for a network with layers that have no rule at infinite width, in the row
    whose limits go by such rules, and for one whose kernels are estimated in the other."""
    if row == "lazy" and (sentence := network.refusal()) is not None:
        raise EmptyCell(sentence)
    if row == "rich" and isinstance(network, AbstractWhole):
        raise EmptyCell(
            f"{type(network).__name__}(network) has the kernels of networks as they are drawn, and "
            "under a rich scaling features move: use NTK() or Standard(), or the network itself."
        )


def check_chosen(
    limit: AbstractLimit, network: AbstractLayer, scaling: AbstractScaling, learner: AbstractLearner
) -> None:
    """Raises ValueError for a limit that was chosen for a member with other settings."""
    for name, own in (("network", network), ("scaling", scaling), ("learner", learner)):
        if getattr(limit, name) != own:
            raise ValueError(
                f"limit is of the {name} {getattr(limit, name)!r} and the member has {own!r}: give "
                "both the same."
            )


def lookup(
    network: AbstractLayer,
    scaling: AbstractScaling,
    learner: AbstractLearner,
    chosen: AbstractLimit | None = None,
) -> AbstractLimit:
    """The limit of a network under a scaling and a learner; `chosen`, with that learner, if given.

    >>> lookup(Dense() >> Relu() >> Readout(), NTK(), GradientDescent())
    TangentKernel(network=Dense() >> Relu() >> Readout(), scaling=NTK(), learner=GradientDescent())

    Raises EmptyCell where no limit is known here, ValueError for an unstable scaling.
    """
    if chosen is not None:
        if (sentence := chosen.refusal()) is not None:
            raise EmptyCell(sentence)
        return dataclasses.replace(chosen, learner=learner)
    row, refusals = regime(network, scaling, learner), []
    check_rules(network, row)
    for kind in all_limits():
        if kind.regime == row and not kind.by_name and isinstance(learner, kind.learners):
            limit = kind(network, scaling, learner)  # type: ignore[call-arg]
            refusal = limit.refusal()
            if refusal is None:
                return limit
            refusals.append(refusal)
    if refusals:
        own = [sentence for sentence in refusals if not isinstance(sentence, Elsewhere)]
        raise EmptyCell(" ".join(dict.fromkeys(own or refusals)))  # some say the same
    found = [x for x in all_limits() if not x.by_name]
    filled = ", ".join(f"{x.regime} x {x.learners[0].kind} ({x.__name__})" for x in found)
    raise EmptyCell(
        f"The limit of the cell {row} x {learner.kind} cannot be computed yet; computed are "
        f"{filled}; finite widths train in every cell."
    )
