"""Every error that tamis raises on purpose.

TamisError
├── RequestError                the caller can fix it
│   ├── MalformedBodyError      not JSON, not UTF-8, not an object
│   ├── MissingFieldError       a required field is absent or empty
│   ├── InvalidFieldError       a field of the wrong type or out of its range
│   ├── InvalidTextError        a text that is not valid Unicode
│   ├── TextTooLongError        a text beyond max_length although truncation was refused
│   ├── TooManyCharactersError  a query or document with more characters than it may have
│   ├── TooManyDocumentsError   more documents than one request may carry
│   ├── RequestTooLargeError    more tokens than a request, or the whole queue, may have
│   ├── UnscorableDocumentError the model fails on this very document
│   ├── BodyTooLargeError       more bytes than a body may have
│   ├── SlowBodyError           the body was not there in time
│   ├── UnsupportedMediaTypeError  a media type or encoding that is not read
│   ├── UnauthorizedError       no key, or none that is known
│   ├── UnknownRequestError     feedback on an answer that is not remembered
│   ├── NoSuchEndpointError     no such path, or none for this method or port
│   ├── HostNotAllowedError     called by a name that is not the server's
│   └── OriginNotAllowedError   called by another site's page
├── UnavailableError            the same call may succeed later
│   ├── QueueFullError          no room for the request's tokens now
│   ├── NotReadyError           the model is still loading
│   ├── DeviceLostError         the model's device fails, and another is to take over
│   └── ShuttingDownError       the server is draining
├── DeadlineExceededError       there was, or will be, no answer in the time allowed
├── OutOfMemoryError            one pair alone is too large for every device
├── InferenceError              the model failed on these pairs
├── ModelError                  the model cannot be used as asked
│   ├── ModelNotFoundError      no folder and no repository of that name
│   ├── UnsupportedModelError   an architecture, head or tokenizer tamis does not run
│   ├── UnsafeModelError        pickled weights or code that comes with the weights
│   ├── IncompleteModelError    a file or a shard is missing
│   ├── ChecksumMismatchError   a file differs from its manifest
│   ├── GoldenMismatchError     the model does not score fixed texts as it did
│   └── RuntimeUnavailableError the runtime, device or dtype is not to be had here
├── HubUnreachableError         the model hub did not answer
├── CacheUnreachableError       the cache's server did not answer a person who asked
└── SettingsError               an option is unknown or has a value it cannot have

Each class has a stable `code`; servers send it, clients raise the same class again from it.
"""

from typing import ClassVar


class TamisError(Exception):
    """Base of every error raised on purpose; its text is a sentence for a person."""

    code: ClassVar[str] = "internal_error"


class RequestError(TamisError):
    """The request cannot be answered as it stands."""

    code = "invalid_request"


class MalformedBodyError(RequestError):
    """The body is not a JSON object in UTF-8."""

    code = "malformed_body"


class MissingFieldError(RequestError):
    """A required field is absent or empty."""

    code = "missing_field"


class InvalidFieldError(RequestError):
    """A field has the wrong type or a value out of its range."""

    code = "invalid_field"


class InvalidTextError(RequestError):
    """A text is not valid Unicode, for instance holds a lone surrogate."""

    code = "invalid_text"


class TextTooLongError(RequestError):
    """A text is longer than `max_length` and the caller refused truncation."""

    code = "text_too_long"


class TooManyCharactersError(RequestError):
    """The query or a document has more characters than it may."""

    code = "too_many_characters"


class TooManyDocumentsError(RequestError):
    """The request carries more documents than one request may."""

    code = "too_many_documents"


class RequestTooLargeError(RequestError):
    """The request has more tokens than one may, or than the queue may ever hold."""

    code = "request_too_large"


class UnscorableDocumentError(RequestError):
    """The model fails on this very document, and on no other."""

    code = "unscorable_document"


class BodyTooLargeError(RequestError):
    """The body has more bytes than the server reads."""

    code = "body_too_large"


class SlowBodyError(RequestError):
    """The body was not there in time."""

    code = "slow_body"


class UnsupportedMediaTypeError(RequestError):
    """The body's media type, character set or encoding is not one the server reads."""

    code = "unsupported_media_type"


class UnauthorizedError(RequestError):
    """There is no key with the request, or none that the server knows."""

    code = "unauthorized"


class UnknownRequestError(RequestError):
    """No answer with this request id is remembered for this caller."""

    code = "unknown_request"


class NoSuchEndpointError(RequestError):
    """There is no such path, or none for this method or on this port."""

    code = "http_error"


class HostNotAllowedError(RequestError):
    """The request is for a name that is not the server's."""

    code = "host_not_allowed"


class OriginNotAllowedError(RequestError):
    """The request comes from a page of another site."""

    code = "origin_not_allowed"


class UnavailableError(TamisError):
    """The same call may succeed later.

    Attributes:
        retry_after_seconds: When that may be, from now; None where nobody knows.
    """

    code = "unavailable"
    retry_after_seconds: float | None = None


class QueueFullError(UnavailableError):
    """The queue has no room for the request's tokens now.

    Attributes:
        n_tokens_over: Tokens that must be done before there is.
    """

    code = "queue_full"

    def __init__(self, message: str, *, n_tokens_over: int = 0) -> None:
        super().__init__(message)
        self.n_tokens_over = n_tokens_over


class NotReadyError(UnavailableError):
    """The model is still being loaded."""

    code = "not_ready"


class DeviceLostError(UnavailableError):
    """The model fails on what it has scored before; another device or process takes over."""

    code = "device_lost"


class ShuttingDownError(UnavailableError):
    """The server is draining and takes no new work."""

    code = "shutting_down"


class DeadlineExceededError(TamisError):
    """There was no answer in the time that was allowed, or there will be none."""

    code = "deadline_exceeded"


class OutOfMemoryError(TamisError):
    """One pair alone is too large for every device."""

    code = "out_of_memory"


class InferenceError(TamisError):
    """The model failed on these pairs."""

    code = "inference_failed"


class ModelError(TamisError):
    """The model cannot be used as asked."""

    code = "model_error"


class ModelNotFoundError(ModelError):
    """There is no folder and no repository of that name."""

    code = "model_not_found"


class UnsupportedModelError(ModelError):
    """The architecture, head or tokenizer is not one tamis runs."""

    code = "unsupported_model"


class UnsafeModelError(ModelError):
    """The folder offers only pickled weights, or wants code of its own to run."""

    code = "unsafe_model"


class IncompleteModelError(ModelError):
    """A file or a shard of the model is missing or cut short."""

    code = "incomplete_model"


class ChecksumMismatchError(ModelError):
    """A file differs from the manifest that was made when it was fetched."""

    code = "checksum_mismatch"


class GoldenMismatchError(ModelError):
    """Fixed texts do not score as they did when the model was first loaded."""

    code = "golden_mismatch"


class RuntimeUnavailableError(ModelError):
    """The runtime, device or dtype asked for is not to be had on this machine."""

    code = "runtime_unavailable"


class HubUnreachableError(TamisError):
    """The model hub did not answer, or may not be asked (offline)."""

    code = "hub_unreachable"


class CacheUnreachableError(TamisError):
    """The cache's server did not answer, or refused; only people who ask get to know."""

    code = "cache_unreachable"


class SettingsError(TamisError):
    """An option is unknown or has a value it cannot have."""

    code = "invalid_settings"
