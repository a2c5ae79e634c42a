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
    "TextTooLongError": 422,
    "TooManyDocumentsError": 422,
    "RequestTooLargeError": 413,
    "BodyTooLargeError": 413,
    "UnavailableError": 503,
    "QueueFullError": 429,
    "NotReadyError": 503,
    "ShuttingDownError": 503,
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


@pytest.mark.parametrize(
    ("status", "retried"), [(429, True), (503, True), (500, False), (413, False)]
)
def test_errors_that_pass_by_themselves_say_when_to_come_back(status: int, retried: bool) -> None:
    assert headers_of(status) == ({"retry-after": "1"} if retried else {})
