"""Whether something fits the tools' port: checked at the start, and for the tools of a source when they come."""

from __future__ import annotations

import inspect
import math
import re

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from baton_proto import codec
from baton_proto.messages import Announcement, ToolSpec
from baton_proto.subjects import tools_stage
from services.common.wording import shorten

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_SPEC_BYTES = 64 * 1024
"""A spec's bytes on the wire. A model pays for each of them in every prompt."""


def what_is_wrong(tool: object) -> str | None:
    """Why `tool` does not fit the port, None where it does."""
    spec, timeout_s = getattr(tool, "spec", None), getattr(tool, "timeout_s", None)
    if not isinstance(spec, ToolSpec):
        return f"gave {type(tool).__name__}, which has no `spec` that is a ToolSpec"
    if (problem := what_is_wrong_with_spec(spec)) is not None:
        return problem
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s < math.inf:
        return "`timeout_s` must be a number of seconds above 0"
    if not inspect.iscoroutinefunction(getattr(tool, "call", None)):
        return "`call` must be an `async def`"
    return None


def what_is_wrong_with_spec(spec: ToolSpec) -> str | None:
    """Why `spec` cannot be announced or its arguments not be checked, None where both can."""
    if not _NAME.fullmatch(spec.name):
        return f"the name {shorten(repr(spec.name), 80)} must be letters, digits, _ and -, at most 64"
    if not spec.description.strip():
        return "the tool has no description"
    try:
        size = spec_bytes(spec)
    except codec.WireError as error:
        return f"the spec cannot be announced: {shorten(str(error), 200)}"
    if size > MAX_SPEC_BYTES:
        return f"the spec has {size} bytes, and at most {MAX_SPEC_BYTES} are announced"
    try:
        Draft202012Validator.check_schema(spec.parameters)
    except SchemaError as error:
        return f"the parameters are no JSON Schema: {shorten(error.message, 200)}"
    if spec.parameters.get("type") != "object":
        return "the parameters must be a JSON Schema of type object"
    return None


def spec_bytes(spec: ToolSpec) -> int:
    """How much of an announcement `spec` takes, rounded up. Raises codec.WireError."""
    return len(codec.encode(Announcement(worker="w", stage=tools_stage("w"), slots=0, running=0, tools=[spec])))
