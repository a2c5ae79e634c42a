"""`tamis cache`: what is in the cache that servers share."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from tamis.errors import SettingsError
from tamis.settings import CacheSettings, load_settings

if TYPE_CHECKING:  # it takes redis-py with it
    from tamis.cache.redis import RedisStore

Result = TypeVar("Result")

PATIENCE_SECONDS = 5.0
"""For each answer; people wait longer than requests do."""

_SETTINGS_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}
_NOT_REACHED = "Scores in servers' own memory are neither counted nor cleared."

cache = typer.Typer(
    help="Inspect and clear the score cache in Redis.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        help="Key name of the caller whose scores are selected, '' for callers without a key "
        "(and for all callers with cache.shared); default: all scores.",
    ),
]


@cache.command(context_settings=_SETTINGS_OPTIONS, epilog=_NOT_REACHED)
def stats(context: typer.Context, namespace: Namespace = None) -> None:
    """Count the scores in Redis and show its memory use.

    Scans all of its keys. Uses the servers' settings: TAMIS_CACHE__REDIS_URL and, for a
    namespace, TAMIS_CACHE__SECRET.
    """
    settings = load_settings(context.args).cache
    survey = _asked(settings, lambda store: store.survey(_digest(settings, namespace)))
    typer.echo(f"scores\t{survey.n_entries}{'' if survey.is_all else ' or more'}")
    if survey.n_used_bytes is None:
        typer.echo("memory of the whole Redis\tunknown: its user may not run INFO")
    else:
        typer.echo(f"memory of the whole Redis\t{survey.n_used_bytes / 1e6:,.1f} MB")


@cache.command(context_settings=_SETTINGS_OPTIONS, epilog=_NOT_REACHED)
def clear(context: typer.Context, namespace: Namespace = None) -> None:
    """Delete all scores from Redis, or those of one namespace, and no other keys.

    Running servers fill it again. Uses the servers' settings: TAMIS_CACHE__REDIS_URL and, for
    a namespace, TAMIS_CACHE__SECRET.
    """
    settings = load_settings(context.args).cache
    n_gone = _asked(settings, lambda store: store.clear(_digest(settings, namespace)))
    typer.echo(f"{n_gone} scores deleted")


def _asked(settings: CacheSettings, ask: "Callable[[RedisStore], Awaitable[Result]]") -> Result:
    """What the Redis of the settings answers.

    Raises:
        SettingsError: there is none, or its URL has another form.
        CacheUnreachableError: it does not answer.
    """
    if settings.redis_url is None:
        raise SettingsError("cache.redis_url is not set: there is no shared cache")
    from tamis.cache.redis import RedisStore
    from tamis.cache.redis_url import parse_redis_url

    url = parse_redis_url(settings.redis_url.get_secret_value())

    async def asked() -> Result:
        store = RedisStore(url, ttl_seconds=settings.ttl_seconds, timeout_seconds=PATIENCE_SECONDS)
        try:
            return await ask(store)
        finally:
            await store.close()

    return asyncio.run(asked())


def _digest(settings: CacheSettings, namespace: str | None) -> bytes | None:
    from tamis.cache.configured import secret_of
    from tamis.cache.pair_keys import namespace_digest

    return None if namespace is None else namespace_digest(secret_of(settings), namespace)
