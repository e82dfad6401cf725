"""Real inference servers with the tiny model: started on free ports, stopped with the tests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.servers.processes import Process, free_port, running, wait_until

MODELS = Path(os.environ.get("TEST_MODELS", ".make/models")).resolve()
START_S = 100.0


@dataclass
class ModelServer:
    """`model` is the name that this server knows the model by."""

    kind: str
    url: str
    model: str
    process: Process


def _llama_server(port: int, context: int, _: Path) -> list[str]:
    """llama.cpp's own server. Two requests at once, each with a whole context of its own."""
    options = ["--ctx-size", str(2 * context), "--parallel", "2", "--threads", "1", "--jinja", "--no-webui"]
    argv = [str(MODELS / "llama" / "bin" / "llama-server"), "-m", str(MODELS / "tiny.gguf"), "--alias", "tiny"]
    return [*argv, "--host", "127.0.0.1", "--port", str(port), *options]


def _llama_cpp_python(port: int, context: int, _: Path) -> list[str]:
    """The Python server around llama.cpp. Without `interrupt_requests false` a new request cuts the running one."""
    options = ["--n_ctx", str(context), "--n_threads", "1", "--interrupt_requests", "false", "--model_alias", "tiny"]
    argv = [str(MODELS / "venv" / "bin" / "python"), "-m", "llama_cpp.server", "--model", str(MODELS / "tiny.gguf")]
    return [*argv, "--host", "127.0.0.1", "--port", str(port), *options]


def _transformers_serve(port: int, _: int, model: Path) -> list[str]:
    argv = [str(MODELS / "venv" / "bin" / "transformers"), "serve", str(model), "--device", "cpu"]
    return [*argv, "--host", "127.0.0.1", "--port", str(port)]


_COMMANDS: dict[str, Callable[[int, int, Path], list[str]]] = {
    "llama-server": _llama_server,
    "llama-cpp-python": _llama_cpp_python,
    "transformers": _transformers_serve,
}
KINDS = list(_COMMANDS)
COUNTING = ("llama-server", "transformers")
"""Those that tell the usage of a stream."""
CALLING = ("llama-server", "transformers")
"""Those that make tool calls of what the model says."""
_ENV = {
    "HF_HUB_OFFLINE": "1",
    "LLAMA_CPP_LIB_PATH": str(MODELS / "llama" / "bin"),
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": "",
    "TOKENIZERS_PARALLELISM": "false",
}


@contextlib.contextmanager
def model_server(
    kind: str, folder: Path, context: int = 2048, hf: Path = MODELS / "hf", options: Sequence[str] = ()
) -> Iterator[ModelServer]:
    """
    Args:
        context: tokens of prompt and answer together; `transformers` has no such setting.
    """
    port = free_port()
    model = str(hf) if kind == "transformers" else "tiny"
    with running([*_COMMANDS[kind](port, context, hf), *options], folder / f"{kind}.log", _ENV) as process:
        one = ModelServer(kind, f"http://127.0.0.1:{port}/v1", model, process)
        wait_until(lambda: _serves(one) or not process.alive, f"{kind} serves", START_S)
        assert process.alive, process.text()
        yield one


def _serves(one: ModelServer) -> bool:
    address = f"{one.url}/models" if one.kind == "llama-cpp-python" else one.url.removesuffix("/v1") + "/health"
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(address, timeout=5).status_code == 200
    return False
