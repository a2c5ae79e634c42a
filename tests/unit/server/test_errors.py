import pytest

from tamis import errors
from tamis.errors import TamisError
from tamis.server.errors import headers_of, status_of

STATUSES = {
    "TamisError": 500,
    "RequestError": 422,
    "MalformedBodyError": 400,
    "MissingFieldError": 400,
    "InvalidFieldError": 422,
    "InvalidTextError": 400,
    "NoSuchEndpointError": 404,
    "HostNotAllowedError": 400,
    "UnauthorizedError": 401,
    "OriginNotAllowedError": 403,
    "UnknownRequestError": 404,
    "SlowBodyError": 408,
    "UnsupportedMediaTypeError": 415,
    "TextTooLongError": 422,
    "TooManyCharactersError": 422,
    "TooManyDocumentsError": 422,
    "RequestTooLargeError": 413,
    "BodyTooLargeError": 413,
    "UnscorableDocumentError": 422,
    "UnavailableError": 503,
    "QueueFullError": 429,
    "NotReadyError": 503,
    "DeviceLostError": 503,
    "ShuttingDownError": 503,
    "DeadlineExceededError": 504,
    "OutOfMemoryError": 507,
    "InferenceError": 500,
    "ModelError": 500,
    "HubUnreachableError": 500,
    "SettingsError": 500,
}


@pytest.mark.parametrize(("name", "status"), STATUSES.items())
def test_each_error_has_its_status(name: str, status: int) -> None:
    assert status_of(getattr(errors, name)("what is wrong")) == status


def test_no_error_of_a_request_is_left_out_of_this_table() -> None:
    roots = (errors.RequestError, errors.UnavailableError)
    assert {cls.__name__ for root in roots for cls in root.__subclasses__()} <= set(STATUSES)


def test_a_class_of_tomorrow_has_the_status_of_the_class_above() -> None:
    class QuotaError(errors.QueueFullError):
        """No such error yet."""

    assert status_of(QuotaError("what is wrong")) == 429
    assert status_of(type("Other", (TamisError,), {})("what is wrong")) == 500


@pytest.mark.parametrize("name", ["RequestError", "InferenceError", "DeadlineExceededError"])
def test_an_error_that_would_come_again_names_no_time(name: str) -> None:
    assert headers_of(getattr(errors, name)("what is wrong")) == {}


def test_a_missing_key_says_how_to_bring_one_and_a_slow_body_ends_its_connection() -> None:
    assert headers_of(errors.UnauthorizedError("no key"))["www-authenticate"].startswith("Bearer")
    assert headers_of(errors.SlowBodyError("too slow")) == {"connection": "close"}


@pytest.mark.parametrize(
    ("seconds", "least", "most"), [(None, 1, 1), (0.2, 1, 1), (10.0, 10, 15), (1000.0, 60, 60)]
)
def test_an_error_that_passes_by_itself_says_when_to_come_back(
    seconds: float | None, least: int, most: int
) -> None:
    error = errors.QueueFullError("no room")
    error.retry_after_seconds = seconds

    told = [int(headers_of(error)["retry-after"]) for _ in range(200)]

    assert least <= min(told) <= max(told) <= most


def test_callers_who_were_refused_together_come_back_apart() -> None:
    error = errors.QueueFullError("no room")
    error.retry_after_seconds = 20.0

    assert len({headers_of(error)["retry-after"] for _ in range(200)}) > 5
