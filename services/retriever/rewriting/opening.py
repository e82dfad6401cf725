"""Which rewriter the settings name, opened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx

from baton_proto.messages import Language, PastTurn
from services.common.config import LlmSettings, RetrieverSettings
from services.common.llm.presets import further_fields
from services.common.llm.server import ChatServer
from services.common.settings import SettingsError

from .model import ModelRewriter
from .port import Rewriter
from .rule import RuleRewriter

SHIPPED = {
    "auto": "services.retriever.rewriting.opening:open_auto",
    "rule": "services.retriever.rewriting.opening:open_rule",
    "model": "services.retriever.rewriting.opening:open_model",
    "off": "services.retriever.rewriting.opening:open_off",
}


class Off:
    """Every question is searched for as it is."""

    async def rewrite(self, question: str, history: Sequence[PastTurn], language: Language) -> str:
        return question


@asynccontextmanager
async def open_off(settings: RetrieverSettings, llm: LlmSettings) -> AsyncIterator[Rewriter]:
    yield Off()


@asynccontextmanager
async def open_rule(settings: RetrieverSettings, llm: LlmSettings) -> AsyncIterator[Rewriter]:
    yield RuleRewriter()


@asynccontextmanager
async def open_model(settings: RetrieverSettings, llm: LlmSettings) -> AsyncIterator[Rewriter]:
    """
    Raises:
        SettingsError: no address or no model.
    """
    problems = []
    if not llm.llm_url.startswith(("http://", "https://")):
        problems.append("BATON_LLM_URL: the rewriter `model` needs a server's address, as in http://localhost:11434/v1")
    if not llm.llm_model:
        problems.append("BATON_LLM_MODEL: the rewriter `model` needs the name of a model")
    if problems:
        raise SettingsError(problems)
    seconds = settings.rewrite_timeout_s
    hurried = replace(llm, first_token_timeout_s=seconds, token_timeout_s=seconds)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
    async with httpx.AsyncClient(timeout=httpx.Timeout(None, connect=seconds), limits=limits) as client:
        server = ChatServer(client, hurried)
        yield ModelRewriter(server, llm.llm_model, RuleRewriter(), seconds, further_fields(llm))


@asynccontextmanager
async def open_auto(settings: RetrieverSettings, llm: LlmSettings) -> AsyncIterator[Rewriter]:
    """The model where there is one, otherwise the rule."""
    opener = open_model if llm.llm_url and llm.llm_model else open_rule
    async with opener(settings, llm) as rewriter:
        yield rewriter
