"""A timer of the kernel's that ends this process: the only promise that a frozen process can keep."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

#: Ends the process by default and nothing else uses it. (SIGALRM belongs to whoever calls ``setitimer``.)
_SIGNAL: Final = signal.SIGVTALRM
_CLOCK_BOOTTIME: Final = 7
_TIMER_ABSTIME: Final = 1
_SIGEV_SIGNAL: Final = 0


class _Sigevent(ctypes.Structure):
    # From sigevent(7): the rest up to 64 bytes is not read for SIGEV_SIGNAL.
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_byte * 48),
    )


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


def _librt() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    for name in (None, "librt.so.1"):
        library = ctypes.CDLL(name, use_errno=True)
        if hasattr(library, "timer_create"):
            return library
    return None


_LIBRT: Final = _librt()


@contextmanager
def killed_after(deadline: float) -> Iterator[None]:
    """
    End this process if the block is still running at ``deadline``, in seconds on ``CLOCK_BOOTTIME``. The kernel does it,
    before a single instruction of a process that wakes up late. Only Linux has such a timer; elsewhere there is none.
    """
    if _LIBRT is None:
        yield
        return
    timer = ctypes.c_void_p()
    event = _Sigevent(signo=_SIGNAL, notify=_SIGEV_SIGNAL)
    _check(_LIBRT.timer_create(_CLOCK_BOOTTIME, ctypes.byref(event), ctypes.byref(timer)))
    try:
        seconds = max(deadline, 0.001)
        whole = int(seconds)
        spec = _Itimerspec(value=_Timespec(whole, int((seconds - whole) * 1e9)))
        _check(_LIBRT.timer_settime(timer, _TIMER_ABSTIME, ctypes.byref(spec), None))
        yield
    finally:
        _LIBRT.timer_delete(timer)


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "the kernel gave no timer")
