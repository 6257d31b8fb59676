"""KIS's Open API on this machine: `KISSimulator`, told by `KISOptions`. Needs the extra ``simulator``."""

from worker.simulate.kis.options import KISOptions
from worker.simulate.kis.simulator import KISSimulator

__all__ = ["KISOptions", "KISSimulator"]
