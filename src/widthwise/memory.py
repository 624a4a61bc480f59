"""What the machine has: memory, its sizes in words and what is free of it, and cores."""

import os
import re

UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def bytes_of(size: str) -> int:
    """A size in words as bytes.

    >>> bytes_of("1.5GB")
    1500000000

    Raises ValueError for anything else.
    """
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]B)\s*", str(size), re.IGNORECASE)
    if not found or not float(found[1]) > 0:
        raise ValueError(f"The memory {size!r} is no size: write for example '4GB' or '500MB'.")
    return int(float(found[1]) * UNITS[found[2].upper()])


def check_free(need: int, what: str, remedy: str) -> None:
    """Raises MemoryError, naming the remedy, for what needs more bytes than are free.

    Where there is no way to ask, NumPy refuses by itself.
    """
    free = free_memory()
    if free is not None and need > free:
        raise MemoryError(f"{what} need {sized(need)} and {sized(free)} are free: {remedy}.")


def sized(count: float) -> str:
    """Bytes in words.

    >>> sized(1.5e9), sized(2e6)
    ('1.5 GB', '2 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 1):.0f} MB"


def free_memory() -> int | None:
    """Bytes that are free on this machine; None where there is no way to ask."""
    try:
        with open("/proc/meminfo") as lines:
            return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None


def cores() -> int:
    """The cores that this process may use."""
    if allowed := getattr(os, "sched_getaffinity", None):
        return len(allowed(0))
    return os.cpu_count() or 1
