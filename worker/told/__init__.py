"""Calls a command, a web hook or chat services for each failsafe event, for the desk that runs no Alertmanager."""

from worker.told.channels import Channel, NotTold, build_channels
from worker.told.teller import Teller, telling

__all__ = ["Channel", "NotTold", "Teller", "build_channels", "telling"]
