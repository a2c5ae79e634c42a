import logging

import pytest

from tamis.cache.configured import make_cache, secret_of
from tamis.cache.pair_keys import NO_SECRET
from tamis.settings import CacheSettings

URL = "redis://localhost"


@pytest.mark.parametrize(
    ("secret", "made_under"), [(None, NO_SECRET), ("", NO_SECRET), ("s", b"s")]
)
async def test_without_a_secret_or_with_an_empty_one_the_log_warns(
    caplog: pytest.LogCaptureFixture, secret: str | None, made_under: bytes
) -> None:
    settings = CacheSettings.model_validate({"secret": secret, "redis_url": URL})
    with caplog.at_level(logging.WARNING):
        await make_cache(settings).close()

    assert secret_of(settings) == made_under
    assert ("cache.secret is not set" in caplog.text) == (made_under == NO_SECRET)
