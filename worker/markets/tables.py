"""Reads the data files of this package."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def table(name: str) -> dict[str, Any]:
    """``data/<name>.toml``, read once."""
    return tomllib.loads(files("worker.markets").joinpath("data", f"{name}.toml").read_text("utf-8"))
