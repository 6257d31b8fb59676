"""The messages of the wire, kept as files: the readable stays readable, and a refusal names the field."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from contracts import ContractError, dump, load_event, load_intent, load_order_event, load_response
from contracts._base import Message
from contracts.schema import json_schema

GOLDEN = Path(__file__).parent / "golden"

LOADERS: dict[str, Callable[[bytes], Message]] = {
    "execution-intent": load_intent,
    "execution-response": load_response,
    "failsafe-event": load_event,
    "order-event": load_order_event,
}

#: What a JSON Schema cannot say: relations between times or ids, sizes in bytes, and 10.0 against 10. (That
#: ``$`` stops before a line's end is Python's habit; ECMA 262, which JSON Schema goes by, refuses it too.)
BEYOND_SCHEMA = {
    "cancel-of-itself",
    "expires-before-created",
    "metadata-nan",
    "metadata-too-large",
    "quantity-exponent-number",
    "quantity-whole-float",
    "symbol-with-line-end",
}

FORMATS = FormatChecker(formats=())
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:?\d\d)", re.ASCII)


@FORMATS.checks("date-time")
def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or _RFC3339.fullmatch(value) is not None


def goldens(kind: str) -> list[Path]:
    found = sorted(GOLDEN.glob(f"*/v1/{kind}/*.json"))
    assert found, "the golden messages are missing"
    return found


def name(path: Path) -> str:
    return f"{message(path)}/{path.stem}"


def message(path: Path) -> str:
    return path.parts[-4]


def is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return path.stem != "lone-surrogate"  # Python reads it; RFC 8259 leaves it open


def validator(path: Path) -> Draft202012Validator:
    return Draft202012Validator(json_schema(message(path)), format_checker=FORMATS)


@pytest.mark.parametrize("path", goldens("valid"), ids=name)
def test_a_message_that_was_readable_once_stays_readable(path: Path) -> None:
    load = LOADERS[message(path)]

    loaded = load(path.read_bytes())

    assert load(dump(loaded)) == loaded


@pytest.mark.parametrize("path", goldens("valid"), ids=name)
def test_the_schema_for_other_languages_takes_what_we_take_and_what_we_write(path: Path) -> None:
    written = dump(LOADERS[message(path)](path.read_bytes()))

    validator(path).validate(json.loads(path.read_bytes()))
    validator(path).validate(json.loads(written))


@pytest.mark.parametrize("path", goldens("invalid"), ids=name)
def test_a_message_that_is_wrong_is_refused_and_told_why(path: Path) -> None:
    expected = path.with_suffix(".expected").read_text().splitlines()

    with pytest.raises(ContractError) as refusal:
        LOADERS[message(path)](path.read_bytes())

    assert refusal.value.faults == expected


@pytest.mark.parametrize("path", [path for path in goldens("invalid") if is_json(path)], ids=name)
def test_the_schema_for_other_languages_refuses_what_we_refuse(path: Path) -> None:
    agrees = not validator(path).is_valid(json.loads(path.read_bytes()))

    assert agrees is (path.stem not in BEYOND_SCHEMA)


@pytest.mark.parametrize("path", goldens("invalid"), ids=name)
def test_every_refusal_of_a_field_starts_with_its_name(path: Path) -> None:
    faults = path.with_suffix(".expected").read_text().splitlines()

    for fault in faults:
        whole_document = fault.startswith(("Invalid JSON", "Input should be an object"))
        assert whole_document or re.match(r"[a-z_]+(\.\w+)*: ", fault)


def test_a_refused_intent_is_known_by_its_id_where_that_can_be_read() -> None:
    refused = (GOLDEN / "execution-intent/v1/invalid/unknown-field.json").read_bytes()
    nameless = (GOLDEN / "execution-intent/v1/invalid/id-with-space.json").read_bytes()

    with pytest.raises(ContractError) as readable:
        load_intent(refused)
    with pytest.raises(ContractError) as unreadable:
        load_intent(nameless)

    assert readable.value.intent_id == "momentum-20261123-000001"
    assert unreadable.value.intent_id is None


def test_a_refusal_never_repeats_the_value() -> None:
    with pytest.raises(ContractError) as refusal:
        load_intent(b'{"intent_id": "a", "symbol": "hunter2", "app_secret": "hunter2", "side": "hunter2"}')

    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("kind", ["execution-response", "failsafe-event", "order-event"])
def test_a_producer_survives_a_worker_that_is_newer_than_itself(kind: str) -> None:
    path = next(iter(sorted(GOLDEN.glob(f"{kind}/v1/valid/*.json"))))
    newer = json.loads(path.read_bytes()) | {"added_in_a_later_version": {"deep": [1]}}

    loaded = LOADERS[kind](json.dumps(newer).encode())

    assert loaded == LOADERS[kind](path.read_bytes())
    assert validator(path).is_valid(newer)
