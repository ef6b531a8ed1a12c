"""The C library's allocator, set for passes that free and ask for the same large tensors again and again.

glibc hands a freed block of megabytes back to the kernel, and the next one of its size is new memory, which the
kernel has to map and to clear page by page: at 1,024 tokens and a vocabulary of 49,152 that was an eighth of the CPU
time of a float32 pass (docs/evaluation-speed.md).
"""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> bool:
    """Keep what is freed in the process, in huge pages where torch may ask for them; False without glibc.

    An experiment: tensors of changing size leave holes, and the process grew to 1.2 GB where it needs 0.25.
    To be called before torch's first tensor.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
