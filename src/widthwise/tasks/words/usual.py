"""Which machine trains where nobody chose."""

from widthwise.tasks.words.machine import AbstractMachine, Threads


def usual(threads: int | None = None) -> AbstractMachine:
    """Threads on a CPU, batches where JAX has an accelerator."""
    import jax

    if jax.default_backend() == "cpu":
        return Threads(threads)
    from widthwise.tasks.words.accelerated import Batches

    return Batches()
