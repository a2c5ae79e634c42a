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
        Field(description="Embedded model, hub name (BAAI/bge-reranker-v2-m3) or local folder."),
    ] = DEFAULT_MODEL
    revision: Annotated[
        str | None,
        Field(description="Branch, tag or commit of a hub name; the newest when left out."),
    ] = None
    runtime: Annotated[
        RuntimeName, Field(description="Inference library; auto takes ctranslate2.")
    ] = "auto"
    device: Annotated[DeviceName, Field(description="auto takes CUDA where there is one.")] = "auto"
    dtype: Annotated[
        DtypeName,
        Field(
            description="Arithmetic; auto is float16 on CUDA and, on a CPU, what the model names, "
            "or int8 in place of float32 where its calibration report passes."
        ),
    ] = "auto"
    max_length: Annotated[
        int,
        Field(ge=16, description="Tokens a pair may have; longer documents are cut.", le=131_072),
    ] = 512
    threads: Annotated[
        int, Field(ge=0, description="CPU threads; 0 takes the cores this process may use.")
    ] = 0
    offline: Annotated[bool, Field(description="Look at local files only, never at the hub.")] = (
        False
    )
    cache_dir: Annotated[Path, Field(description="Folder for converted models.")] = Field(
        default_factory=_user_cache_dir
    )


class CascadeSettings(Section):
    """A first-stage model scores all documents, the served model only the best of them."""

    model: Annotated[
        str, Field(description="First-stage model, which scores all documents of a request.")
    ] = DEFAULT_MODEL
    keep: Annotated[
        int,
        Field(ge=0, description="Best documents that the served model reads; 0 is no cascade."),
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
        int, Field(ge=0, description="Memory for scores in the server's process; 0 keeps none.")
    ] = 64 * 2**20
    ttl_seconds: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="Seconds that a score is kept.")
    ] = 86_400.0
    secret: Annotated[
        SecretStr | None,
        Field(
            description="What keys are made under, the same on all servers that share a store: "
            "without it, who reads the store can tell which texts it knows."
        ),
    ] = None
    shared: Annotated[
        bool,
        Field(
            description="Whether callers with different keys share scores; how fast an answer is "
            "then tells one what others have asked."
        ),
    ] = False
    redis_url: Annotated[
        SecretStr | None,
        Field(
            description="Redis that servers share: redis://, rediss://, unix://, "
            "redis+sentinel://host:port,host:port/service/db or redis+cluster://host:port,host:port."
        ),
    ] = None
    redis_timeout_ms: Annotated[
        int, Field(ge=1, description="Milliseconds that a request waits for Redis, at most.")
    ] = 50


class SchedulerSettings(Section):
    """How pairs of many callers become batches."""

    max_batch_tokens: Annotated[
        int,
        Field(
            ge=0,
            description="Tokens in one forward pass, at most (a longer pair is alone); 0 takes "
            "what was measured on this processor when the model was converted.",
        ),
    ] = 0
    max_queued_tokens: Annotated[
        int,
        Field(
            ge=1,
            description="Tokens waiting or running, at most; beyond it callers get 429, except "
            "for a key below its equal share.",
        ),
    ] = 1_000_000
    workers: Annotated[
        int,
        Field(
            ge=0,
            le=64,
            description="Worker processes that run the model, each with its part of the cores or "
            "a CUDA device; 0 runs it in the server's own process.",
        ),
    ] = 0
    stall_seconds: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Seconds without progress after which a model counts as hung; five times "
            "the p99 of its batches if that is longer.",
        ),
    ] = 10.0


class ServerSettings(Section):
    """The HTTP server."""

    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535, description="Port; 0 takes a free one.")] = 8000
    timeout_seconds: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Seconds until a request must be answered, unless it asks for less.",
        ),
    ] = 120.0
    drain_delay_seconds: Annotated[
        float,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="Seconds from SIGTERM, when /readyz turns 503, to the end of listening.",
        ),
    ] = 5.0
    drain_seconds: Annotated[
        int, Field(ge=0, description="Seconds that running requests get to finish at shutdown.")
    ] = 25
    keys_file: Annotated[
        Path | None,
        Field(description="File of those who may call (`tamis keys make`); anyone when left out."),
    ] = None
    allowed_hosts: Annotated[
        str,
        Field(
            description="Names it is called by, with commas between, in addition to addresses, "
            "names without a dot, reserved ones (.internal, .local, .svc) and its own; "
            "*.example.org for all below one, * for any."
        ),
    ] = ""
    cors_origins: Annotated[
        str,
        Field(description="Origins whose pages may call, with commas between; * for any."),
    ] = ""
    metrics_port: Annotated[
        int | None,
        Field(ge=1, le=65_535, description="Port that /metrics is on, instead of the common one."),
    ] = None
    metrics_open: Annotated[
        bool, Field(description="Whether /metrics on the common port asks for no key.")
    ] = False


class LimitsSettings(Section):
    """What one caller, connection or request may take; `GET /v1/limits` shows it."""

    max_body_bytes: Annotated[
        int, Field(ge=1, description="Bytes a body may have, as it is sent and unpacked.")
    ] = 8 * 2**20
    max_total_body_bytes: Annotated[
        int,
        Field(
            ge=1,
            description="Bytes of all callers' bodies, unpacked and then decoded, from the first "
            "one to its answer; beyond it callers get 429, except for a key below its equal share.",
        ),
    ] = 256 * 2**20
    max_unsent_bytes: Annotated[
        int,
        Field(
            ge=1,
            description="Bytes of all callers' answers that wait to be taken; beyond it the one "
            "that waits longest is dropped, of the key that has most.",
        ),
    ] = 64 * 2**20
    max_documents: Annotated[int, Field(ge=1, description="Documents a request may carry.")] = 1000
    max_document_characters: Annotated[
        int, Field(ge=1, description="Characters a document's text may have.")
    ] = 100_000
    max_query_characters: Annotated[
        int, Field(ge=1, description="Characters a query may have.")
    ] = 16_000
    max_request_tokens: Annotated[
        int, Field(ge=1, description="Tokens a request's pairs may have, all together.")
    ] = 1_000_000
    max_header_bytes: Annotated[
        int, Field(ge=1024, description="Bytes of a request's first line and headers.")
    ] = 32 * 2**10
    header_seconds: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="Seconds for headers to be there.")
    ] = 10.0
    body_seconds: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="Seconds for a body to be there.")
    ] = 15.0
    max_answer_seconds: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Seconds in which a caller must have taken all of an answer.",
        ),
    ] = 60.0
    idle_seconds: Annotated[
        int, Field(ge=1, description="Seconds an idle connection is kept open.")
    ] = 75


class TelemetrySettings(Section):
    """Traces for OpenTelemetry (extra `otel`)."""

    otlp_endpoint: Annotated[
        str | None,
        Field(
            pattern=r"^https?://[^\s/]",
            description="URL of a collector, as http://localhost:4318 (OTLP over HTTP); no traces "
            "when left out.",
        ),
    ] = None
    sample_ratio: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Share of the traces beginning here that are kept; of a caller's trace the "
            "caller decides.",
        ),
    ] = 1.0


class LogSettings(Section):
    """What is logged; never a query's or document's text."""

    level: Annotated[LogLevel, Field(description="Least severe level that is written.")] = "info"
    format: Annotated[
        LogFormat, Field(description="auto is console on a terminal and json elsewhere.")
    ] = "auto"
    requests_per_second: Annotated[
        int,
        Field(
            ge=1,
            description="Lines about requests answered without an error, ten times as many in a "
            "burst; the rest is counted.",
        ),
    ] = 20


class RelevanceSettings(Section):
    """What is kept of rankings, to see when they go wrong."""

    threshold: Annotated[
        float,
        Field(ge=0, le=1, description="A best score below it counts as nothing relevant."),
    ] = 0.5
    window: Annotated[
        int,
        Field(ge=100, le=100_000, description="Newest requests in which drift is looked for."),
    ] = 500
    baseline: Annotated[
        Path | None,
        Field(description="File to compare them with (`tamis baseline record`)."),
    ] = None
    feedback_requests: Annotated[
        int,
        Field(
            ge=0,
            description="Newest answers that feedback can be given on, for an hour; 0 for none.",
        ),
    ] = 5000
    log_file: Annotated[
        Path | None,
        Field(
            description="JSONL file for a sample of requests; 100 MiB with the one before it, "
            "`NAME.1`; none when left out."
        ),
    ] = None
    log_share: Annotated[
        float, Field(ge=0, le=1, description="Share of requests in the sample.")
    ] = 0.01
    log_texts: Annotated[
        bool, Field(description="Write texts into it, and not their keyed digests.")
    ] = False
    log_key: Annotated[
        SecretStr | None,
        Field(description="Key of these digests; a new one at every start when left out."),
    ] = None
