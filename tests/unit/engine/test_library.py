import logging
from typing import get_args

import pytest

from tamis.engine.library import settle_dtype
from tamis.engine.loading import LIBRARIES
from tamis.settings import RuntimeName

COMPUTED = frozenset({"float32", "int8"})


def test_each_runtime_that_can_be_asked_for_is_a_library() -> None:
    assert {"auto", *LIBRARIES} == set(get_args(RuntimeName))


@pytest.mark.parametrize(
    ("asked", "dtype", "n_warnings"), [("int8", "int8", 0), ("float16", "float32", 1)]
)
def test_the_log_says_where_another_dtype_is_taken(
    caplog: pytest.LogCaptureFixture, asked: str, dtype: str, n_warnings: int
) -> None:
    with caplog.at_level(logging.WARNING):
        assert settle_dtype(asked, where="cpu", cpu_dtype="float32", computed=COMPUTED) == dtype
    assert len(caplog.records) == n_warnings
