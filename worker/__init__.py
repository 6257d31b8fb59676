"""Takes trading intents from a queue, places each order once, and says truthfully what happened."""

__version__ = "0.1.0"
