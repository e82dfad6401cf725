"""JSON Schemas of all messages, made from the classes in `messages.py`.

What the classes cannot say is added here: what a stored frame must have, what a client does not see, and bounds that
are counted in bytes.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any, get_args

import msgspec

from . import messages
from .messages import (
    MAX_FILTERS_BYTES,
    MAX_FILTERS_DEPTH,
    MAX_FILTERS_VALUES,
    MAX_FREE_FORM_DEPTH,
    MAX_QUERY_BYTES,
    WIRE_VERSION,
)

Schema = dict[str, Any]

CLIENT_KINDS: tuple[type, ...] = get_args(messages.ClientMessage)
FRAME_KINDS: tuple[type, ...] = get_args(messages.LogFrame)
CONNECTION_KINDS: tuple[type, ...] = (messages.Hello, messages.Resumed, messages.Pong)
WIRE_KINDS: tuple[type, ...] = (*get_args(messages.WireMessage), messages.Handoff)

_REF = "#/components/schemas/{name}"
_ADDED: dict[tuple[str, str], Schema] = {
    ("Query", "query"): {
        "minLength": 1,
        "maxLength": MAX_QUERY_BYTES,
        "description": f"Not only white space; at most {MAX_QUERY_BYTES} bytes in UTF-8.",
    },
    ("Query", "filters"): {
        "description": f"Equalities on document metadata: at most {MAX_FILTERS_DEPTH} levels, {MAX_FILTERS_VALUES} "
        f"keys and values, and {MAX_FILTERS_BYTES} bytes."
    },
    ("ToolCalled", "arguments"): {"description": f"What JSON can hold, at most {MAX_FREE_FORM_DEPTH} levels deep."},
    ("ToolSpec", "parameters"): {
        "description": f"A JSON Schema of type object, at most {MAX_FREE_FORM_DEPTH} levels deep."
    },
    ("Handoff", "item"): {"anyOf": [{"$ref": _REF.format(name="WorkItem")}, {"type": "null"}]},
}
_ITEM_DESCRIPTION = (
    "All a worker needs to go on with a request. It travels inside the log, in the `handoff` of a frame. `calls` is "
    "set for tools only. `queued_ms` is when this item was handed over. Top-level fields that a worker does not know "
    "are part of the item too: it writes them back as they came, so a newer worker's fields survive an older one's "
    "hand-off."
)


def client_name(kind: type) -> str:
    """Name of the schema of a log frame as a client sees it."""
    return f"client.{kind.__name__}"


def component_schemas() -> dict[str, Schema]:
    """Every schema by its name; a log frame has two, as it is stored and as a client sees it."""
    kinds = [*CLIENT_KINDS, *CONNECTION_KINDS, *WIRE_KINDS]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_REF)
    for name, schema in schemas.items():
        _tidy(schema)
        for field, added in _ADDED.items():
            if field[0] == name:
                schema["properties"][field[1]] |= added
        if "v" in schema["properties"]:
            schema["properties"]["v"] = {"type": "integer", "enum": [WIRE_VERSION]}
            schema["required"] = [*schema["required"], "v"]
    schemas["Query"]["required"] = ["query"]
    schemas["WorkItem"]["properties"].pop("extra")
    schemas["WorkItem"]["description"] = _ITEM_DESCRIPTION
    schemas["Handoff"]["oneOf"] = [{"required": ["item"]}, {"required": ["object"]}]
    for kind in FRAME_KINDS:
        _store(schemas[kind.__name__])
        schemas[client_name(kind)] = _shown(schemas[kind.__name__])
    _join(schemas[client_name(messages.AnswerChunk)])
    schemas["client.ConnectionError"] = _connection_error(schemas["Error"])
    return dict(sorted(schemas.items()))


def _tidy(schema: Any) -> None:
    """Drop what only repeats that a field is optional, and make descriptions independent of how they were wrapped."""
    if isinstance(schema, list):
        for part in schema:
            _tidy(part)
    if not isinstance(schema, dict):
        return
    if schema.get("default", ...) is None:
        del schema["default"]
    if isinstance(text := schema.get("description"), str):
        paragraphs = inspect.cleandoc(text).split("\n\n")
        schema["description"] = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    if isinstance(pattern := schema.get("pattern"), str):
        schema["pattern"] = pattern.removesuffix(r"(?!\n)")  # only Python's `$` needs it
    if schema.get("minimum") == -1e300:  # keeps infinities and NaN out of msgpack; JSON has none
        del schema["minimum"], schema["maximum"]
    if isinstance(discriminator := schema.get("discriminator"), dict):
        schema["discriminator"] = discriminator["propertyName"]
    for part in schema.values():
        _tidy(part)


def _store(frame: Schema) -> None:
    """A frame in the log has its number and time; the classes have defaults for them only until they are queued."""
    fields = frame["properties"]
    fields["seq"] = {"type": "integer", "minimum": 0}
    fields["timestamp"] = {
        "type": "string",
        "format": "date-time",
        "minLength": 1,
        "description": "RFC 3339, UTC, milliseconds; the writer's clock.",
    }
    frame["required"] = ["type", "seq", "timestamp", *(name for name in frame["required"] if name != "type")]
    if frame["title"] in ("Done", "Error"):
        fields.pop("handoff")
        frame["properties"]["handoff"] = {"type": "null"}
    else:
        fields["handoff"]["description"] = (
            "Internal: who goes on. The last frame of its writer; never shown to a client."
        )


def _shown(frame: Schema) -> Schema:
    shown = copy.deepcopy(frame)
    shown["properties"].pop("handoff")
    shown["properties"]["request_id"] = {"type": "string", "description": "The request whose frame this is."}
    shown["required"].append("request_id")
    return shown


def _join(chunk: Schema) -> None:
    chunk["properties"]["from_seq"] = {
        "type": "integer",
        "minimum": 0,
        "description": "Of several chunks joined for a slow client: the first one's `seq`; `seq` is the last one's.",
    }


def _connection_error(error: Schema) -> Schema:
    """An `error` about a message that did not become a request: it belongs to no log."""
    schema = copy.deepcopy(error)
    for name in ("seq", "timestamp", "handoff"):
        schema["properties"].pop(name)
    schema["title"] = "ConnectionError"
    schema["description"] = (
        "A message could not be served. `request_id` is the message's, where it had a well-formed one."
    )
    schema["properties"]["request_id"] = {"type": "string"}
    schema["required"] = ["type", "code", "message", "retryable"]
    return schema
