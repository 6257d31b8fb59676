"""Adapters by name: the ones in this package, and those that other packages register as entry points."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from worker.brokers.base import BaseBrokerAdapter
from worker.errors import ConfigError

#: Where other packages register: ``name = "module:Class"``.
GROUP: Final = "execution_worker.brokers"

#: Ours, found even where the installation's entry points are stale. They win over an entry point of the same name.
BUILT_IN: Final[dict[str, str]] = {
    "kis": "worker.brokers.kis:KISBrokerAdapter",
    "simulated": "worker.brokers.simulated:SimulatedBrokerAdapter",
}


def broker_names() -> list[str]:
    """Every name that `adapter_class` knows, sorted."""
    return sorted(BUILT_IN.keys() | entry_points(group=GROUP).names)


def adapter_class(name: str) -> type[BaseBrokerAdapter]:
    """
    The adapter registered under a name.

    Raises:
        ConfigError: nobody registered it, or it cannot be loaded; the text says which and what to do.
    """
    found = _load(name)
    if not (isinstance(found, type) and issubclass(found, BaseBrokerAdapter)):
        raise ConfigError([f"broker: {name!r} is registered as {found!r}, which is no BaseBrokerAdapter"])
    return found


def _load(name: str) -> object:
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        try:
            return getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            # A broker's libraries come with an extra of its name.
            fault = f"broker: {name!r} needs {error.name}; install execution-worker[{name}]"
            raise ConfigError([fault]) from error
    points = list(entry_points(group=GROUP, name=name))
    if not points:
        raise ConfigError([f"broker: no broker is called {name!r}; known are {', '.join(broker_names())}"])
    if len({point.value for point in points}) > 1:
        owners = ", ".join(sorted(point.value for point in points))
        raise ConfigError(
            [f"broker: {name!r} is registered more than once ({owners}); uninstall all but one"]
        )
    return _load_point(points[0])


def _load_point(point: EntryPoint) -> object:
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        fault = f"broker: {point.name!r} cannot be loaded from {point.value}: {error}; install or repair it"
        raise ConfigError([fault]) from error
