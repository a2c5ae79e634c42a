"""What loading leaves behind in the allocator, given back to the operating system."""

import ctypes
import gc


def release_unused() -> bool:
    """Give freed memory back; glibc alone keeps it otherwise.

    Returns:
        Whether this C library has a way to.
    """
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS; TypeError on Windows
        return False
    trim(ctypes.c_size_t(0))
    return True
