"""kombu's classes as they are typed: not at all. One place for that, instead of an excuse on every line."""

from __future__ import annotations

from typing import Any

import kombu.connection
import kombu.entity
import kombu.message
import kombu.messaging
import kombu.transport.virtual
import kombu.transport.virtual.exchange

Connection: Any = kombu.connection.Connection
Consumer: Any = kombu.messaging.Consumer
Queue: Any = kombu.entity.Queue
Message: Any = kombu.message.Message
Channel: Any = kombu.transport.virtual.Channel
DirectExchange: Any = kombu.transport.virtual.exchange.DirectExchange
QoS: Any = kombu.transport.virtual.QoS
Transport: Any = kombu.transport.virtual.Transport
