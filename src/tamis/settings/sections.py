"""Each option, its name, default, unit and help, by section."""

import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

DeviceName = Literal["auto", "cpu", "cuda"]
DtypeName = Literal["auto", "float32", "float16", "bfloat16", "int8"]
RuntimeName = Literal["auto", "ctranslate2", "torch"]
LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

DEFAULT_MODEL = "tamis-mini"


def _user_cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "tamis"
    try:
        return Path.home() / ".cache" / "tamis"
    except RuntimeError:  # a user without a home, as containers have them
        return Path(tempfile.gettempdir()) / "tamis"


class Section(BaseModel):
    """A group of options; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(Section):
    """Which model, where it runs and how."""

    name: Annotated[
        str,
        Field(description="Embedded model, Hub name (BAAI/bge-reranker-v2-m3) or local folder."),
    ] = DEFAULT_MODEL
    revision: Annotated[
        str | None,
        Field(description="Branch, tag or commit of a Hub model; default: the newest."),
    ] = None
    runtime: Annotated[
        RuntimeName, Field(description="Inference library; auto selects ctranslate2.")
    ] = "auto"
    device: Annotated[DeviceName, Field(description="auto selects CUDA if available.")] = "auto"
    dtype: Annotated[
        DtypeName,
        Field(
            description=(
                "Precision; auto is float16 on CUDA and, on a CPU, what the model names, or "
                "int8 instead of float32 if its calibration report passes."
            )
        ),
    ] = "auto"
    max_length: Annotated[
        int,
        Field(
            ge=16,
            description="Maximum number of tokens per pair; longer documents are cut.",
            le=131_072,
        ),
    ] = 512
    threads: Annotated[
        int, Field(ge=0, description="CPU threads; 0 means all cores available to this process.")
    ] = 0
    offline: Annotated[bool, Field(description="Use only local files, never the Hub.")] = False
    cache_dir: Annotated[Path, Field(description="Folder for converted models.")] = Field(
        default_factory=_user_cache_dir
    )


class CascadeSettings(Section):
    """A first-stage model scores all documents, the served model only the best of them."""

    model: Annotated[
        str, Field(description="First-stage model; it scores all documents of a request.")
    ] = DEFAULT_MODEL
    keep: Annotated[
        int,
        Field(
            ge=0,
            description="Best documents that the main model scores; 0 disables the cascade.",
        ),
    ] = 0
    margin: Annotated[
        float,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="Also keep documents within this margin of the last kept logit.",
        ),
    ] = 0.0


class CacheSettings(Section):
    """Scores that are kept, so that no pair is scored twice."""

    memory_bytes: Annotated[
        int,
        Field(ge=0, description="Memory for cached scores in the server's process; 0 disables it."),
    ] = 64 * 2**20
    ttl_seconds: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="Seconds until a cached score expires.")
    ] = 86_400.0
    secret: Annotated[
        SecretStr | None,
        Field(
            description=(
                "Secret of the cache keys; must be equal on all servers that share a store. "
                "Without it, anyone who reads the store can test which texts were scored."
            )
        ),
    ] = None
    shared: Annotated[
        bool,
        Field(
            description=(
                "Whether callers with different keys share scores; response times then reveal "
                "what others have asked."
            )
        ),
    ] = False
    redis_url: Annotated[
        SecretStr | None,
        Field(
            description=(
                "Redis shared by servers: redis://, rediss://, unix://, "
                "redis+sentinel://host:port,host:port/service/db or "
                "redis+cluster://host:port,host:port."
            )
        ),
    ] = None
    redis_timeout_ms: Annotated[
        int, Field(ge=1, description="Maximum milliseconds that a request waits for Redis.")
    ] = 50


class SchedulerSettings(Section):
    """How pairs of many callers become batches."""

    max_batch_tokens: Annotated[
        int,
        Field(
            ge=0,
            description=(
                "Maximum tokens in one forward pass (a longer pair runs alone); 0 uses the "
                "budget measured by `tamis models tune`, or the default."
            ),
        ),
    ] = 0
    max_queued_tokens: Annotated[
        int,
        Field(
            ge=1,
            description=(
                "Maximum tokens waiting or running; beyond it callers get 429, except for a "
                "key below its equal share."
            ),
        ),
    ] = 1_000_000
    workers: Annotated[
        int,
        Field(
            ge=0,
            le=64,
            description=(
                "Worker processes that run the model, each with its part of the cores or a "
                "CUDA device; 0 runs it in the server's own process."
            ),
        ),
    ] = 0
    stall_seconds: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description=(
                "Seconds without progress after which a model counts as hung; five times the "
                "p99 of its batches if that is longer."
            ),
        ),
    ] = 10.0


class ServerSettings(Section):
    """The HTTP server."""

    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535, description="Port; 0 picks a free one.")] = 8000
    timeout_seconds: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Seconds until a request must be answered, unless it sets a shorter time.",
        ),
    ] = 120.0
    drain_delay_seconds: Annotated[
        float,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="Seconds to keep listening after SIGTERM, while /readyz is 503.",
        ),
    ] = 5.0
    drain_seconds: Annotated[
        int, Field(ge=0, description="Seconds that running requests get to finish at shutdown.")
    ] = 25
    keys_file: Annotated[
        Path | None,
        Field(description="File of API keys (`tamis keys make`); default: no keys required."),
    ] = None
    allowed_hosts: Annotated[
        str,
        Field(
            description=(
                "Comma-separated Host names to accept in addition to addresses, names without "
                "a dot, reserved ones (.internal, .local, .svc) and its own; *.example.org "
                "accepts all subdomains, * any name."
            )
        ),
    ] = ""
    cors_origins: Annotated[
        str,
        Field(description="Comma-separated origins whose pages may call; * for any."),
    ] = ""
    metrics_port: Annotated[
        int | None,
        Field(ge=1, le=65_535, description="Separate port for /metrics; default: the common port."),
    ] = None
    metrics_open: Annotated[
        bool, Field(description="Whether /metrics on the common port needs no key.")
    ] = False


class LimitsSettings(Section):
    """What one caller, connection or request may take; `GET /v1/limits` shows it."""

    max_body_bytes: Annotated[
        int, Field(ge=1, description="Maximum bytes of a body, both as sent and decompressed.")
    ] = 8 * 2**20
    max_total_body_bytes: Annotated[
        int,
        Field(
            ge=1,
            description=(
                "Maximum bytes of all callers' bodies, decompressed and then decoded, from "
                "arrival to answer; beyond it callers get 429, except for a key below its "
                "equal share."
            ),
        ),
    ] = 256 * 2**20
    max_unsent_bytes: Annotated[
        int,
        Field(
            ge=1,
            description=(
                "Maximum bytes of all callers' unread answers; beyond it, the oldest answer "
                "of the key with the most is dropped."
            ),
        ),
    ] = 64 * 2**20
    max_unpacked_ratio: Annotated[
        int, Field(ge=1, description="Unpacked bytes per packed byte of a compressed body.")
    ] = 20
    max_documents: Annotated[
        int, Field(ge=1, description="Maximum number of documents per request.")
    ] = 1000
    max_document_characters: Annotated[
        int, Field(ge=1, description="Maximum characters of a document.")
    ] = 100_000
    max_query_characters: Annotated[
        int, Field(ge=1, description="Maximum characters of a query.")
    ] = 16_000
    max_request_tokens: Annotated[
        int, Field(ge=1, description="Maximum tokens of all pairs of a request.")
    ] = 1_000_000
    max_header_bytes: Annotated[
        int, Field(ge=1024, description="Maximum bytes of the request line and headers.")
    ] = 32 * 2**10
    header_seconds: Annotated[
        float,
        Field(
            gt=0, allow_inf_nan=False, description="Seconds until all headers must have arrived."
        ),
    ] = 10.0
    body_seconds: Annotated[
        float,
        Field(gt=0, allow_inf_nan=False, description="Seconds until the body must have arrived."),
    ] = 15.0
    max_answer_seconds: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Seconds until a caller must have read the whole answer.",
        ),
    ] = 60.0
    idle_seconds: Annotated[
        int, Field(ge=1, description="Seconds to keep an idle connection open.")
    ] = 75


class TelemetrySettings(Section):
    """Traces for OpenTelemetry (extra `otel`)."""

    otlp_endpoint: Annotated[
        str | None,
        Field(
            pattern=r"^https?://[^\s/]",
            description=(
                "URL of an OTLP collector (HTTP), such as http://localhost:4318; default: no "
                "traces."
            ),
        ),
    ] = None
    sample_ratio: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description=(
                "Sampling ratio of traces that begin here; for a caller's trace, the caller "
                "decides."
            ),
        ),
    ] = 1.0


class LogSettings(Section):
    """What is logged; never a query's or document's text."""

    level: Annotated[LogLevel, Field(description="Minimum level of written lines.")] = "info"
    format: Annotated[
        LogFormat, Field(description="auto is console on a terminal and json elsewhere.")
    ] = "auto"
    requests_per_second: Annotated[
        int,
        Field(
            ge=1,
            description=(
                "Maximum log lines per second for successful requests, with bursts of ten "
                "times that; the rest is counted."
            ),
        ),
    ] = 20


class RelevanceSettings(Section):
    """What is kept of rankings, to see when they go wrong."""

    threshold: Annotated[
        float,
        Field(ge=0, le=1, description='A best score below this counts as "nothing relevant".'),
    ] = 0.5
    window: Annotated[
        int,
        Field(
            ge=100, le=100_000, description="Number of newest requests that are checked for drift."
        ),
    ] = 500
    baseline: Annotated[
        Path | None,
        Field(description="Baseline file to compare with (`tamis baseline record`)."),
    ] = None
    feedback_requests: Annotated[
        int,
        Field(
            ge=0,
            description="Number of newest answers that accept feedback, for an hour; 0 for none.",
        ),
    ] = 5000
    log_file: Annotated[
        Path | None,
        Field(
            description=(
                "JSONL file for a sample of requests, up to 100 MiB including the previous "
                "one, `NAME.1`; default: none."
            )
        ),
    ] = None
    log_share: Annotated[
        float, Field(ge=0, le=1, description="Share of requests in the sample.")
    ] = 0.01
    log_texts: Annotated[
        bool, Field(description="Write texts to the sample instead of keyed digests.")
    ] = False
    log_key: Annotated[
        SecretStr | None,
        Field(description="Key of these digests; default: a new one at every start."),
    ] = None
