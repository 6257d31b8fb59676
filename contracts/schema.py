"""
The contracts for other languages: one JSON Schema for each message, and the AsyncAPI document of the streams.

Generated from the models and committed, so that a change of the wire shows in a review. A published
``vN.json`` never changes its meaning; a breaking change is version N+1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from contracts.failsafe import FailsafeEvent
from contracts.intent import METADATA_BYTES_MAX, ExecutionIntent
from contracts.orders import OrderEvent
from contracts.response import ExecutionResponse

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_Mode = Literal["validation", "serialization"]

#: Name → model, and whether the schema tells what we read (closed) or what we write (open: later versions of
#: the worker may add fields, and readers ignore those that they do not know).
_MESSAGES: dict[str, tuple[type[BaseModel], _Mode]] = {
    "execution-intent": (ExecutionIntent, "validation"),
    "execution-response": (ExecutionResponse, "serialization"),
    "failsafe-event": (FailsafeEvent, "serialization"),
    "order-event": (OrderEvent, "serialization"),
}

#: What ``ExecutionIntent`` checks across its fields. An absent field may also be written as null.
_INTENT_RULES: list[dict[str, Any]] = [
    {
        "if": {"properties": {"intent_type": {"enum": ["MARKET", "LIMIT"]}}},
        "then": {
            "required": ["side", "quantity"],
            "properties": {"side": {"not": {"type": "null"}}, "quantity": {"not": {"type": "null"}}},
        },
    },
    {
        "if": {"properties": {"intent_type": {"const": "LIMIT"}}},
        "then": {"required": ["limit_price"], "properties": {"limit_price": {"not": {"type": "null"}}}},
        "else": {"properties": {"limit_price": {"type": "null"}}},
    },
    {
        "if": {"properties": {"intent_type": {"const": "CANCEL"}}},
        "then": {
            "required": ["target_intent_id"],
            "properties": {"target_intent_id": {"not": {"type": "null"}}},
        },
        "else": {"properties": {"target_intent_id": {"type": "null"}}},
    },
]

_RESPONSE_RULES: list[dict[str, Any]] = [
    {
        "if": {"properties": {"outcome": {"const": "ACCEPTED"}}},
        "then": {
            "required": ["broker_order_id"],
            "properties": {
                "accepted": {"const": True},
                "broker_order_id": {"type": "string", "minLength": 1},
                "code": {"type": "null"},
            },
        },
        "else": {
            "required": ["code"],
            "properties": {"accepted": {"const": False}, "code": {"not": {"type": "null"}}},
        },
    },
]

_RULES = {"execution-intent": _INTENT_RULES, "execution-response": _RESPONSE_RULES}


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a message, such as ``execution-intent``."""
    model, mode = _MESSAGES[name]
    body = _finish(name, mode, model.model_json_schema(mode=mode))
    return {"$schema": _DRAFT, "$id": f"urn:execworker:schema:{name}:1"} | body


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.1 document: every stream of a route, who writes it, and what an entry holds."""
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "Execution worker",
            "version": "1",
            "description": (
                "Strategies add intents to a Redis stream; the worker places each order once and publishes "
                "one final answer to each. Every entry has a field `body` that holds the message as JSON."
            ),
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(name, *about) for name, about in _CHANNELS.items()},
        "operations": _operations(),
        "components": {"messages": _messages(), "schemas": _component_schemas()},
    }


def files() -> Iterator[tuple[str, str]]:
    """Path and text of every generated file, below the directory of the contracts."""
    for name in _MESSAGES:
        yield f"schemas/{name}/v1.json", _text(json_schema(name))
    yield "asyncapi.json", _text(asyncapi())


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _finish(name: str, mode: _Mode, schema: dict[str, Any]) -> dict[str, Any]:
    finished = {key: value for key, value in schema.items() if key not in ("title", "description")}
    finished |= {"title": schema["title"], "description": _first_paragraph(schema["description"])}
    if mode == "serialization":
        del finished["additionalProperties"]
    if name in _RULES:
        finished["allOf"] = _RULES[name]
    return finished


def _first_paragraph(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())


# --- AsyncAPI ---------------------------------------------------------------------------------------------

#: Name → (messages, description).
_CHANNELS: dict[str, tuple[tuple[str, ...], str]] = {
    "intents": (
        ("executionIntent",),
        "What strategies ask for. Any language may add entries; those of one symbol are worked in order.",
    ),
    "cancels": (("executionIntent",), "Intents of type CANCEL, read before the others."),
    "responses": (("executionResponse",), "Exactly one final answer to each intent_id."),
    "failsafe": (
        ("failsafeEvent",),
        "Trips, resets, halts, doubts and whatever else needs a person.",
    ),
    "orders": (("orderEvent",), "The life of accepted orders: fills, cancels, refusals by the exchange."),
    "dead": (
        ("deadLetter",),
        "Entries that no answer could be given to, with their raw bytes and the reason.",
    ),
}

_ROUTE = {
    "description": "The name of the route between literal braces, so that its keys share one cluster slot.",
    "default": "{default}",
    "examples": ["{default}", "{kis_main}"],
}

#: Operation → (channel, what the worker does, summary).
_OPERATIONS = {
    "receiveIntent": ("intents", "receive", "The worker takes an intent and answers it once."),
    "receiveCancel": ("cancels", "receive", "The worker takes a cancel and answers it once."),
    "sendResponse": ("responses", "send", "The worker publishes the one final answer."),
    "sendFailsafe": ("failsafe", "send", "The worker publishes that something needs a person."),
    "sendOrderEvent": ("orders", "send", "The worker publishes what became of an accepted order."),
    "sendDeadLetter": ("dead", "send", "The worker puts aside what it cannot answer."),
}

_COMPONENT_NAMES = {
    "executionIntent": "execution-intent",
    "executionResponse": "execution-response",
    "failsafeEvent": "failsafe-event",
    "orderEvent": "order-event",
}

#: Entry fields beside ``body``.
_ENTRY_FIELDS: dict[str, dict[str, Any]] = {
    "executionIntent": {
        "content-type": {"type": "string", "const": "application/json"},
        "traceparent": {"type": "string", "description": "W3C trace context of the producer."},
    },
    "executionResponse": {"intent_id": {"type": "string"}},
    "failsafeEvent": {"type": {"type": "string", "description": "The event's type."}},
    "orderEvent": {},
}


def _channel(name: str, messages: tuple[str, ...], description: str) -> dict[str, Any]:
    return {
        # An address cannot escape a brace, so the parameter holds them.
        "address": f"exec:{{route}}:{name}",
        "description": description,
        "messages": {message: {"$ref": f"#/components/messages/{message}"} for message in messages},
        "parameters": {"route": _ROUTE},
    }


def _operations() -> dict[str, Any]:
    operations: dict[str, Any] = {
        name: {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}
        for name, (channel, action, summary) in _OPERATIONS.items()
    }
    for name in ("receiveIntent", "receiveCancel"):
        operations[name]["reply"] = {"channel": {"$ref": "#/channels/responses"}}
    return operations


def _messages() -> dict[str, Any]:
    messages: dict[str, Any] = {}
    for component, name in _COMPONENT_NAMES.items():
        model = _MESSAGES[name][0]
        message = {
            "name": name,
            "title": model.__name__,
            "contentType": "application/json",
            "headers": {"type": "object", "properties": _ENTRY_FIELDS[component]},
            "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
        }
        if "intent_id" in model.model_fields:
            message["correlationId"] = {"location": "$message.payload#/intent_id"}
        messages[component] = message
    messages["executionIntent"]["description"] = (
        f"At most 64 KiB, of which metadata at most {METADATA_BYTES_MAX} bytes. The same intent_id with the "
        "same content is a replay and safe at any time; with other content it is a conflict and never traded."
    )
    messages["deadLetter"] = _DEAD_LETTER
    return messages


_DEAD_LETTER: dict[str, Any] = {
    "name": "dead-letter",
    "title": "DeadLetter",
    "contentType": "application/octet-stream",
    "description": "The entry's raw bytes (of an oversize one the first 4 KiB); the other fields say why.",
    "headers": {
        "type": "object",
        "properties": {
            "reason": {"type": "string", "enum": ["invalid", "conflict", "oversize", "poison"]},
            "error": {"type": "string"},
            "entry_id": {"type": "string"},
        },
    },
    "payload": {"type": "string"},
}


def _component_schemas() -> dict[str, Any]:
    _, together = models_json_schema(
        [(model, mode) for model, mode in _MESSAGES.values()], ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = dict(together["$defs"])
    for name, (model, mode) in _MESSAGES.items():
        schemas[model.__name__] = _finish(name, mode, schemas[model.__name__])
    return dict(sorted(schemas.items()))
