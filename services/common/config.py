"""Every setting of every service, declared once. The table in docs/settings.md is generated from these classes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .settings import setting
from .shares import Share, named, read_shares


@dataclass(frozen=True, slots=True)
class NatsSettings:
    url: str = setting("BATON_NATS_URL", "nats://127.0.0.1:4222", "NATS servers, separated by commas.")
    log_storage: str = setting("BATON_LOG_STORAGE", "file", "Where logs and work are kept.", choices=("file", "memory"))
    replicas: int = setting("BATON_REPLICAS", 1, "JetStream replicas of every stream.", minimum=1, maximum=5)
    shards: int = setting(
        "BATON_LOG_SHARDS",
        16,
        "Streams over which logs are spread; fixed for the life of the logs.",
        minimum=1,
        maximum=256,
    )
    log_max_age_s: int = setting(
        "BATON_LOG_MAX_AGE_S", 3600, "Seconds a finished log stays readable.", minimum=60, maximum=604_800
    )
    log_max_bytes: int = setting(
        "BATON_LOG_MAX_BYTES", 256 * 1024 * 1024, "Most bytes in one log shard.", minimum=1024 * 1024
    )
    answers_max_age_s: int = setting(
        "BATON_ANSWERS_MAX_AGE_S",
        7 * 24 * 3600,
        "Seconds a final answer is kept for `resume` after its log has gone.",
        minimum=60,
    )
    answers_max_bytes: int = setting(
        "BATON_ANSWERS_MAX_BYTES",
        256 * 1024 * 1024,
        "Most bytes of kept answers; beyond it the oldest go.",
        minimum=1024 * 1024,
    )
    conversations_max_age_s: int = setting(
        "BATON_CONVERSATIONS_MAX_AGE_S",
        30 * 24 * 3600,
        "Seconds a conversation is kept after its last question.",
        minimum=60,
    )
    conversations_max_bytes: int = setting(
        "BATON_CONVERSATIONS_MAX_BYTES",
        256 * 1024 * 1024,
        "Most bytes of conversations; beyond it the ones that were used longest ago go.",
        minimum=1024 * 1024,
    )
    cache_max_age_s: int = setting(
        "BATON_CACHE_MAX_AGE_S", 24 * 3600, "Seconds a cached retrieval or answer is kept.", minimum=60
    )
    cache_max_bytes: int = setting(
        "BATON_CACHE_MAX_BYTES",
        256 * 1024 * 1024,
        "Most bytes of cached retrievals and answers; beyond it the oldest go.",
        minimum=1024 * 1024,
    )
    ingest_max_items: int = setting(
        "BATON_INGEST_MAX_ITEMS",
        100_000,
        "Files that may wait to be ingested; beyond it uploads are refused until some are done.",
        minimum=1,
    )
    work_max_items: int = setting(
        "BATON_WORK_MAX_ITEMS",
        10_000,
        "Work items that the queue holds. New queries are refused at 9 tenths of it, those of a user who has more than "
        "the direct ones at 7 tenths; the rest is for answers that have begun.",
        minimum=1,
    )

    @property
    def shown_url(self) -> str:
        """The URL as it may be shown: without user and password."""
        return re.sub(r"(?<=//)[^/@,]*@", "", self.url)


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    drain_s: float = setting("BATON_DRAIN_S", 20.0, "Seconds a service may take to finish on SIGTERM.", minimum=0.1)
    log: str = setting("BATON_LOG", "text", "Form of log lines.", choices=("text", "json"))
    log_level: str = setting(
        "BATON_LOG_LEVEL", "info", "Least severe lines to print.", choices=("debug", "info", "warning", "error")
    )
    metrics_port: int = setting(
        "BATON_METRICS_PORT", 0, "Port of a worker's /metrics and /healthz; 0 = none.", minimum=0, maximum=65_535
    )
    metrics_host: str = setting("BATON_METRICS_HOST", "127.0.0.1", "Address on which a worker serves its metrics.")
    variant: str = setting(
        "BATON_VARIANT",
        "",
        "Variant that this process is, as in `b`; in its metrics. A retriever or generator that is one serves the "
        "requests that try it (BATON_VARIANTS of the gateway), and no others.",
        read=named,
    )
    trace_contents: bool = setting(
        "BATON_TRACE_CONTENTS", False, "Whether traces hold what users, documents, tools and models say."
    )


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    host: str = setting("BATON_GATEWAY_HOST", "127.0.0.1", "Address to listen on.")
    port: int = setting("BATON_GATEWAY_PORT", 8000, "Port to listen on; 0 = any free one.", minimum=0, maximum=65_535)
    auth: str = setting(
        "BATON_AUTH", "auto", "`off` allows a gateway without authentication on any address.", choices=("auto", "off")
    )
    jwt_secret: str = setting("BATON_JWT_SECRET", "", "Shared secret (HS256) of the tokens.", secret=True)
    jwt_jwks: str = setting("BATON_JWT_JWKS", "", "URL of the key set (JWKS) that signs the tokens.")
    jwt_audience: str = setting("BATON_JWT_AUDIENCE", "", "`aud` that a token must carry.")
    jwt_issuer: str = setting("BATON_JWT_ISSUER", "", "`iss` that a token must carry.")
    origins: tuple[str, ...] = setting(
        "BATON_ALLOWED_ORIGINS",
        (),
        "Further origins whose pages may connect, separated by commas; `*` = all. The gateway's own origin always may, "
        "and any loopback origin while it listens on loopback.",
    )
    idle_s: float = setting("BATON_IDLE_S", 300.0, "Seconds without data before 4008.", minimum=0.1)
    auth_timeout_s: float = setting("BATON_AUTH_TIMEOUT_S", 10.0, "Seconds to wait for `auth`.", minimum=0.1)
    deadline_ms: int = setting(
        "BATON_DEADLINE_MS",
        120_000,
        "Milliseconds an answer may take when the client names none.",
        minimum=1_000,
        maximum=600_000,
    )
    variants: tuple[Share, ...] = setting(
        "BATON_VARIANTS",
        (),
        "Variants of retrievers or generators, each with the percentage of conversations that try it, as in `b=10`.",
        read=read_shares,
    )
    top_k: int = setting(
        "BATON_TOP_K", 6, "Passages per question when the client names no number.", minimum=1, maximum=50
    )
    language: str = setting("BATON_LANGUAGE", "en", "Language where a question shows none.", choices=("zh", "en"))
    requests_per_connection: int = setting(
        "BATON_REQUESTS_PER_CONNECTION", 64, "Requests that run at once on one connection.", minimum=1
    )
    requests_per_user: int = setting(
        "BATON_REQUESTS_PER_USER",
        50,
        "Requests of one user that run at once, over all gateways. Without authentication there are no users, "
        "and no such limit.",
        minimum=1,
        maximum=100_000,
    )
    direct_requests: int = setting(
        "BATON_DIRECT_REQUESTS",
        8,
        "Running requests of one user (without authentication: of one connection) on a gateway that go to the workers "
        "at once. Further ones wait for their user's turn while workers are busy.",
        minimum=1,
        maximum=100_000,
    )
    max_connections: int = setting("BATON_MAX_CONNECTIONS", 10_000, "Connections before 4029.", minimum=1)
    send_buffer_bytes: int = setting(
        "BATON_SEND_BUFFER_BYTES", 4 * 1024 * 1024, "Bytes that may wait for a slow client before 4009.", minimum=65_536
    )
    disconnect_grace_s: float = setting(
        "BATON_DISCONNECT_GRACE_S",
        60.0,
        "Seconds a request goes on that nobody follows any more, where its query did not say `on_disconnect`.",
        minimum=0,
    )
    uploads: bool = setting(
        "BATON_UPLOADS", True, "Whether users may bring in documents over the page and `POST /documents`."
    )
    upload_groups: tuple[str, ...] = setting(
        "BATON_UPLOAD_GROUPS",
        (),
        "Groups (of the token's claim `groups`) whose members may bring in documents; empty = every user.",
    )
    share_groups: tuple[str, ...] = setting(
        "BATON_SHARE_GROUPS",
        (),
        "Groups whose members may bring in documents that others read too, and remove any that they may read; empty = "
        "nobody. Everybody else brings in documents for themselves. Without authentication everybody may.",
    )
    upload_max_bytes: int = setting(
        "BATON_UPLOAD_MAX_BYTES", 200 * 1024 * 1024, "Bytes of one upload, all its files together, at most.", minimum=1
    )
    no_worker_s: float = setting(
        "BATON_NO_WORKER_S", 4.0, "Seconds without a live worker before a request ends with `no_worker`.", minimum=1
    )


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    concurrency: int = setting("BATON_CONCURRENCY", 16, "Requests a worker serves at once.", minimum=1, maximum=4096)
    ack_wait_s: float = setting(
        "BATON_ACK_WAIT_S", 5.0, "Seconds without a renewal before work goes to another worker.", minimum=2
    )
    max_deliveries: int = setting(
        "BATON_MAX_DELIVERIES", 5, "Deliveries of one item before its request ends with `poisoned`.", minimum=1
    )


@dataclass(frozen=True, slots=True)
class RetrieverSettings:
    retriever: str = setting(
        "BATON_RETRIEVER",
        "milvus",
        "Where passages are kept and searched (docs/stores.md): `milvus`, `local` (a folder of this machine), "
        "`pinecone`, or `module:attribute` of your own implementation.",
    )
    store_dir: str = setting(
        "BATON_STORE_DIR", ".baton/store", "Folder of the `local` store; all processes that use it run on one machine."
    )
    milvus_uri: str = setting(
        "BATON_MILVUS_URI", "http://127.0.0.1:19530", "Address of Milvus: Lite's server, standalone or distributed."
    )
    milvus_token: str = setting("BATON_MILVUS_TOKEN", "", "Token or `user:password` for Milvus.", secret=True)
    collection: str = setting("BATON_MILVUS_COLLECTION", "baton_documents", "Collection of the passages.")
    pinecone_api_key: str = setting("BATON_PINECONE_API_KEY", "", "Key for Pinecone.", secret=True)
    pinecone_host: str = setting("BATON_PINECONE_HOST", "", "Host of the Pinecone index of sparse vectors, for words.")
    pinecone_dense_host: str = setting(
        "BATON_PINECONE_DENSE_HOST", "", "Host of the Pinecone index of dense vectors; needed with an embedder."
    )
    pinecone_namespace: str = setting(
        "BATON_PINECONE_NAMESPACE", "baton_documents", "Namespace of the passages in both Pinecone indexes."
    )
    timeout_s: float = setting("BATON_RETRIEVAL_TIMEOUT_S", 8.0, "Seconds one search may take.", minimum=0.1)
    embedder: str = setting(
        "BATON_EMBEDDER",
        "none",
        "`none` (full text only), `openai` (any `/v1/embeddings`), `sentence-transformers` (here, from disk), or "
        "`module:attribute`.",
    )
    embedding_url: str = setting("BATON_EMBEDDING_URL", "", "Base URL of the embedding server, ending in `/v1`.")
    embedding_model: str = setting(
        "BATON_EMBEDDING_MODEL",
        "",
        "Name of the embedding model; for `sentence-transformers` a folder, or an installed package with the weights.",
    )
    embedding_api_key: str = setting("BATON_EMBEDDING_API_KEY", "", "Key of the embedding server.", secret=True)
    embedding_query_prefix: str = setting(
        "BATON_EMBEDDING_QUERY_PREFIX", "", "What the model wants before a question, as E5 `query: `."
    )
    embedding_passage_prefix: str = setting(
        "BATON_EMBEDDING_PASSAGE_PREFIX", "", "What the model wants before a passage, as E5 `passage: `."
    )
    reranker: str = setting(
        "BATON_RERANKER",
        "none",
        "What puts the best passages in a better order: `none`, `http` (any `/rerank` as of Jina, Cohere, vLLM or "
        "text-embeddings-inference), `sentence-transformers` (a cross-encoder from disk), or `module:attribute`.",
    )
    rerank_url: str = setting("BATON_RERANK_URL", "", "URL of the reranking server, with or without `/rerank`.")
    rerank_model: str = setting(
        "BATON_RERANK_MODEL",
        "",
        "Name of the reranking model; for `sentence-transformers` a folder, or an installed package with the weights.",
    )
    rerank_api_key: str = setting("BATON_RERANK_API_KEY", "", "Key of the reranking server.", secret=True)
    rerank_candidates: int = setting(
        "BATON_RERANK_CANDIDATES", 30, "Passages that a reranker is given.", minimum=2, maximum=100
    )
    rerank_timeout_s: float = setting(
        "BATON_RERANK_TIMEOUT_S", 2.0, "Seconds a reranker may take; later, the order stands as it was.", minimum=0.05
    )
    fold: bool = setting("BATON_FOLD", True, "Whether a passage that says what a better one says is left out.")
    merge: bool = setting("BATON_MERGE", True, "Whether found neighbours of one section become one passage.")
    rewriter: str = setting(
        "BATON_REWRITER",
        "auto",
        "How a follow-up is made to stand alone before the search (see docs/follow-ups.md): `rule`, `model`, `auto` "
        "(`model` where BATON_LLM_URL and BATON_LLM_MODEL are set, otherwise `rule`), `off`, or `module:attribute`.",
    )
    rewrite_timeout_s: float = setting(
        "BATON_REWRITE_TIMEOUT_S",
        4.0,
        "Seconds a model may take to rewrite a question before the rule does it.",
        minimum=0.1,
        maximum=60,
    )
    search_tool: bool = setting(
        "BATON_SEARCH_TOOL", True, "Whether a model may search again by itself (`search_documents`)."
    )
    chunk_tokens: int = setting(
        "BATON_CHUNK_TOKENS",
        300,
        "Largest passage, in tokens, counted with care: about 4 English characters or 0.8 Chinese ones each.",
        minimum=50,
        maximum=4_000,
    )
    max_document_bytes: int = setting(
        "BATON_MAX_DOCUMENT_BYTES", 50 * 1024 * 1024, "Largest file that is ingested.", minimum=1
    )


@dataclass(frozen=True, slots=True)
class IngestSettings:
    concurrency: int = setting(
        "BATON_INGEST_CONCURRENCY", 2, "Files that an ingest worker works on at once.", minimum=1, maximum=64
    )
    ack_wait_s: float = setting(
        "BATON_INGEST_ACK_WAIT_S", 10.0, "Seconds without a renewal before a file goes to another worker.", minimum=2
    )
    max_deliveries: int = setting(
        "BATON_INGEST_MAX_DELIVERIES", 4, "Deliveries of one file before it is said to have failed.", minimum=1
    )
    parse_timeout_s: float = setting(
        "BATON_PARSE_TIMEOUT_S", 60.0, "Seconds that reading one file may take.", minimum=1
    )
    parse_memory_mb: int = setting(
        "BATON_PARSE_MEMORY_MB", 1_024, "Memory, in MiB, that reading one file may take.", minimum=128
    )
    archive_max_files: int = setting("BATON_ARCHIVE_MAX_FILES", 10_000, "Files in one zip archive at most.", minimum=1)
    archive_max_bytes: int = setting(
        "BATON_ARCHIVE_MAX_BYTES", 1024 * 1024 * 1024, "Bytes of one zip archive's files, unpacked, at most.", minimum=1
    )


@dataclass(frozen=True, slots=True)
class CacheSettings:
    cache: str = setting(
        "BATON_CACHE",
        "on",
        "What the same question is answered from again: `on` = what was found, and answers, `retrieval` = the former.",
        choices=("on", "retrieval", "off"),
    )
    cache_scope: str = setting(
        "BATON_CACHE_SCOPE",
        "user",
        "Who shares what is cached: `user` = nobody, each user has a cache of their own; `all` = all users who may see "
        "the same documents.",
        choices=("user", "all"),
    )


@dataclass(frozen=True, slots=True)
class LlmSettings:
    llm_url: str = setting("BATON_LLM_URL", "", "Base URL of an OpenAI-compatible server, ending in `/v1`.")
    llm_model: str = setting("BATON_LLM_MODEL", "", "Name of the model.")
    llm_api_key: str = setting("BATON_LLM_API_KEY", "", "Key of the LLM server.", secret=True)
    llm_preset: str = setting(
        "BATON_LLM_PRESET",
        "none",
        "Class of the model, for what is not set otherwise: prompt size, sampling, further fields (docs/models.md).",
        choices=("none", "llama3", "qwen", "gpt4", "deepseek"),
    )
    llm_body: str = setting(
        "BATON_LLM_BODY",
        "",
        'JSON object with further fields of each request, as in `{"top_k": 20}`; they win over the preset\'s, and '
        "`null` takes one of those away.",
    )
    first_token_timeout_s: float = setting(
        "BATON_LLM_FIRST_TOKEN_TIMEOUT_S", 30.0, "Seconds to wait for a model's first token.", minimum=0.1
    )
    token_timeout_s: float = setting(
        "BATON_LLM_TOKEN_TIMEOUT_S", 15.0, "Seconds to wait between two tokens.", minimum=0.1
    )


@dataclass(frozen=True, slots=True)
class GeneratorSettings(LlmSettings):
    generator: str = setting(
        "BATON_GENERATOR", "extractive", "`extractive`, `openai`, or `module:attribute` of your own implementation."
    )
    llm_continue: str = setting(
        "BATON_LLM_CONTINUE",
        "",
        "How the server is asked to continue an answer whose generator was lost (see docs/models.md); `off` = it is "
        "asked from the start, and the user sees the answer begin again. Empty = as the preset says, or `off`.",
        choices=("off", "vllm", "prefix", "partial", "plain"),
    )
    prompts: str = setting("BATON_PROMPTS", "", "Folder of prompt files; empty = the ones that ship with Baton.")
    prompt_tokens: int | None = setting(
        "BATON_PROMPT_TOKENS",
        None,
        "Tokens of a prompt at most, by a careful estimate; empty = as the preset says, 8000 without one.",
        minimum=1_500,
        maximum=2_000_000,
    )
    history_tokens: int = setting(
        "BATON_HISTORY_TOKENS",
        1_500,
        "Tokens of the conversation's earlier turns in it at most; 0 = none.",
        minimum=0,
        maximum=1_000_000,
    )
    max_tokens: int | None = setting(
        "BATON_MAX_TOKENS",
        None,
        "Tokens of one answer at most; a request may ask for fewer. Empty = as the preset says.",
        minimum=1,
        maximum=32_768,
    )
    temperature: float | None = setting(
        "BATON_TEMPERATURE",
        None,
        "Temperature where a request names none. Empty = as the preset says.",
        minimum=0,
        maximum=2,
    )
    top_p: float | None = setting(
        "BATON_TOP_P",
        None,
        "`top_p` where a request names none. Empty = as the preset says.",
        minimum=0.01,
        maximum=1,
    )
    chunk_delay_ms: int = setting(
        "BATON_EXTRACTIVE_DELAY_MS",
        15,
        "Milliseconds between the pieces of an extractive answer.",
        minimum=0,
        maximum=10_000,
    )
    max_tool_turns: int = setting(
        "BATON_MAX_TOOL_TURNS", 6, "Rounds of tool calls in one answer.", minimum=0, maximum=50
    )


@dataclass(frozen=True, slots=True)
class ToolsSettings:
    tools: str = setting("BATON_TOOLS", "", "YAML file that says which tools are served (see docs/tools.md).")
    tool_set: str = setting("BATON_TOOL_SET", "default", "Name of the tool set that this worker serves.")
    timeout_s: float = setting("BATON_TOOL_TIMEOUT_S", 20.0, "Seconds one call may take at most.", minimum=0.1)
    turn_timeout_s: float = setting(
        "BATON_TOOL_TURN_TIMEOUT_S", 60.0, "Seconds all calls of one turn may take together.", minimum=0.1
    )
    concurrency: int = setting(
        "BATON_TOOL_CONCURRENCY", 16, "Calls that one worker runs at once.", minimum=1, maximum=10_000
    )
    max_result_chars: int = setting(
        "BATON_TOOL_MAX_RESULT_CHARS",
        8_000,
        "Characters of a tool's result that are kept.",
        minimum=100,
        maximum=100_000,
    )
    leave_url: str = setting(
        "BATON_LEAVE_URL", "", "Base URL of the HR system that `leave_balance` asks; empty = the tool is not offered."
    )
    timezone: str = setting("BATON_TIMEZONE", "Asia/Shanghai", "Time zone of the date and time tool.")


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """Of `baton eval --judge`; no service reads them."""

    judge_url: str = setting(
        "BATON_JUDGE_URL", "", "Base URL of the OpenAI-compatible server that judges answers in `baton eval --judge`."
    )
    judge_model: str = setting("BATON_JUDGE_MODEL", "", "Name of the judging model.")
    judge_api_key: str = setting("BATON_JUDGE_API_KEY", "", "Key of the judging server.", secret=True)
    judge_timeout_s: float = setting(
        "BATON_JUDGE_TIMEOUT_S", 60.0, "Seconds to wait for the judge's first token, and between two.", minimum=0.1
    )


ALL_SETTINGS: tuple[type, ...] = (
    NatsSettings,
    ProcessSettings,
    GatewaySettings,
    WorkerSettings,
    RetrieverSettings,
    IngestSettings,
    CacheSettings,
    LlmSettings,
    GeneratorSettings,
    ToolsSettings,
    JudgeSettings,
)
