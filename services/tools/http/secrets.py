"""Header values that stand in the environment or in a file. Read once, at the start; no message quotes one."""

from __future__ import annotations

import os
from pathlib import Path

from .fields import Fields
from .request import Secret, is_header_value

_MAX_BYTES = 16 * 1024


def read_secret(fields: Fields, folder: Path) -> Secret:
    """What `{env: NAME}` or `{file: path}` stands for, with its `prefix`; paths are relative to `folder`. What is wrong
    is noted in `fields`."""
    prefix = fields.raw("prefix") or ""
    if ("env" in fields) == ("file" in fields) or not isinstance(prefix, str):
        fields.note("expected `env` with a variable's name or `file` with a path, and perhaps a `prefix`")
        return Secret("")
    found = _variable(fields) if "env" in fields else _file(fields, folder)
    source = f"the variable {fields.raw('env')}" if "env" in fields else f"the file {fields.raw('file')}"
    if found is None:
        return Secret("")
    if not found:
        fields.note(f"{source} is not there or is empty")
    elif not is_header_value(found) or not is_header_value(prefix.strip()):
        fields.note(f"{source} or the prefix holds what no header can: a header has visible ASCII only")
    return Secret(found, prefix)


def _variable(fields: Fields) -> str | None:
    """What the environment says, "" where it does not; None where something else is wrong, and noted."""
    name = fields.text("env", needed=True)
    if name.startswith("BATON_"):
        fields.note("Baton's own settings are not for tools", "env")
        return None
    return os.environ.get(name, "") if name else None


def _file(fields: Fields, folder: Path) -> str | None:
    """The file's text without the end of its line; None where it cannot be read, and that is noted."""
    path = fields.text("file", needed=True)
    if not path:
        return None
    try:
        data = (folder / path).read_bytes()
        if len(data) <= _MAX_BYTES:
            return data.decode().strip()
        fields.note(f"more than {_MAX_BYTES} bytes", "file")
    except OSError as error:
        fields.note(f"{error.strerror or error}", "file")
    except UnicodeDecodeError:
        fields.note("is no text", "file")
    return None
