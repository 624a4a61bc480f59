"""Where compiled threads wait for each other: one ordered store and a few ordered loads.

Numba has no atomics of its own, and entering a parallel loop costs more than a whole position of
training. Here every thread writes how far it is into a cache line of its own and reads the lines
of the others: about 0.2 microseconds for two threads on two cores.
"""

import os
from typing import no_type_check

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

LINE = 16  # 64-bit numbers from one thread's mark to the next: two cache lines apart
SPINS = 1000  # loads before the core is offered to others, who may be the ones we wait for
OFFERS = 200  # before we sleep: on a busy machine, the one we wait for is away for milliseconds

# By name and not by address, so that compiled code can be kept on disk.
_POSIX = os.name == "posix"
_offer = types.ExternalFunction("sched_yield" if _POSIX else "SwitchToThread", types.int32())
_sleep = types.ExternalFunction("usleep" if _POSIX else "Sleep", types.int32(types.uint32))
_NAP = np.uint32(100 if _POSIX else 1)  # microseconds here, milliseconds there


@intrinsic
@no_type_check
def _load(typing, address):
    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.uintp), generate


@intrinsic
@no_type_check
def _store(typing, address, value):
    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        builder.store_atomic(arguments[1], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(types.uintp, types.int64), generate


def marks(threads: int) -> np.ndarray:
    """The marks of that many threads, all at zero."""
    return np.zeros((threads, LINE), dtype=np.int64)


@njit(nogil=True, cache=True)
@no_type_check
def wait(marks, thread, mark):
    """Says that this thread has reached `mark`, and waits until all have.

    Marks rise. What a thread wrote before it called is seen by all when they return.
    """
    if marks.shape[0] == 1:
        return
    _store(np.uintp(marks[thread].ctypes.data), mark)
    for other in range(marks.shape[0]):
        address = np.uintp(marks[other].ctypes.data)
        spins = 0
        while _load(address) < mark:
            spins += 1
            if spins > SPINS + OFFERS:
                _sleep(_NAP)
            elif spins > SPINS:
                _offer()
