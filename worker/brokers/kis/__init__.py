"""
Orders over the KIS Open API (한국투자증권). Needs the extra ``kis``.

::

    KISBrokerAdapter ── signs in; what a route with broker = "kis" uses
      └─ KISOrderAdapter(KISClient) ── place, cancel, look up, list
           ├─ payload     orders → bytes             ┐
           ├─ replies     answers → what they prove  │ pure, over the dated tables
           ├─ rows        lists → OrderRecord        │ codes.toml and facts.py
           ├─ scan        pages → a whole list       │
           ├─ executions  frames → OrderNotice       ┘
           ├─ notices ── what KIS says by itself: one line after the other
           └─ KISClient ── one request a call; sending says whether it left; auth keeps the token
"""

from worker.brokers.kis.adapter import KISBrokerAdapter
from worker.brokers.kis.auth import AccessTokenPayload, BrokerAdapter, TokenCache
from worker.brokers.kis.client import KISClient, ReadFailed
from worker.brokers.kis.codes import CodeRow, CodeVerdict, code_row, code_table, map_broker_error_to_safety
from worker.brokers.kis.denied import PretradeDenied
from worker.brokers.kis.facts import Environment
from worker.brokers.kis.numbers import OrderNumber
from worker.brokers.kis.options import Credentials, KISOptions
from worker.brokers.kis.orders import KISOrderAdapter, OrderRules
from worker.brokers.kis.payload import Account, build_kis_cancel_payload, build_kis_order_payload
from worker.brokers.kis.replies import Reply, parse_kis_place_response, read_reply
from worker.brokers.kis.rows import KIS_STATUS_TO_ORDER_STATUS, KISOrderRecord
from worker.brokers.kis.shared import RedisTokenStore

__all__ = [
    "KIS_STATUS_TO_ORDER_STATUS",
    "AccessTokenPayload",
    "Account",
    "BrokerAdapter",
    "CodeRow",
    "CodeVerdict",
    "Credentials",
    "Environment",
    "KISBrokerAdapter",
    "KISClient",
    "KISOptions",
    "KISOrderAdapter",
    "KISOrderRecord",
    "OrderNumber",
    "OrderRules",
    "PretradeDenied",
    "ReadFailed",
    "RedisTokenStore",
    "Reply",
    "TokenCache",
    "build_kis_cancel_payload",
    "build_kis_order_payload",
    "code_row",
    "code_table",
    "map_broker_error_to_safety",
    "parse_kis_place_response",
    "read_reply",
]
