"""Whatever goes wrong in the hub's client, as one sentence that says what to do."""

import os
from collections.abc import Generator
from contextlib import contextmanager

import httpx2
from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tamis.engine.hub.local_cache import cache_folder, whether_here
from tamis.errors import HubUnreachableError, ModelNotFoundError, SettingsError, TamisError

_PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_WHAT_TO_DO = {
    401: "check HF_TOKEN, or log in with `hf auth login`",
    403: "the token (HF_TOKEN, `hf auth login`) must be allowed to read it",
    404: "check HF_ENDPOINT",
    407: "the proxy wants a name and password: http://NAME:PASSWORD@HOST:PORT",
    429: "it gets too many requests; try again later, or log in with `hf auth login`",
}


@contextmanager
def setting_up() -> Generator[None]:
    """Making the client: what fails here is a variable that tells it how to connect.

    Raises:
        SettingsError: a proxy or certificate that was set cannot be used.
    """
    try:
        yield
    except Exception as error:
        given = [
            f"{name}={os.environ[name]}"
            for upper in (*_PROXIES, *_CERTIFICATES)
            for name in (upper, upper.lower())
            if os.environ.get(name)
        ]
        raise SettingsError(
            f"the hub's client cannot be set up: {_reason(error)}; correct or unset "
            f"{', '.join(given) or 'the proxy and certificate settings'}"
        ) from error


def require_usable_token() -> None:
    """Refuse a token that no header can have.

    Raises:
        SettingsError: it has characters outside printable ASCII.
    """
    token = os.environ.get("HF_TOKEN") or get_token() or ""
    if not token.strip().isascii() or not token.strip().isprintable():
        raise SettingsError(
            "HF_TOKEN (or the token of `hf auth login`) has characters that no token has; "
            "copy it again, it begins with hf_"
        )


@contextmanager
def as_sentences(name: str, revision: str | None) -> Generator[None]:
    """Asking the hub for a repository.

    Raises:
        ModelNotFoundError: there is no such repository or revision, or it is not open to you.
        HubUnreachableError: the hub does not answer, or not as a hub does.
        SettingsError: the hub's cache cannot be written to.
    """
    try:
        yield
    except TamisError:
        raise
    except Exception as error:
        raise _sentence(name, revision, error) from error


def _sentence(name: str, revision: str | None, error: Exception) -> TamisError:
    hub = constants.ENDPOINT
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # the client looked in its cache then
    if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError | DisabledRepoError):
        return ModelNotFoundError(_not_found(name, revision, error))
    if isinstance(error, HFValidationError):
        return ModelNotFoundError(
            f"{name} is neither a local folder nor a valid Hub repository name: {error}"
        )
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        what = _WHAT_TO_DO.get(status, "try again later")
        return HubUnreachableError(f"{hub} answered {status} for {name}; {what}")
    if isinstance(error, httpx2.TooManyRedirects):
        return HubUnreachableError(
            f"{hub} redirects in a loop for {name}; check HF_ENDPOINT and the network's login"
        )
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL):
        return SettingsError(f"HF_ENDPOINT or a proxy is no URL: {_reason(error)}")
    if isinstance(error, httpx2.HTTPError | ConnectionError | TimeoutError):
        return HubUnreachableError(
            f"{whether_here(name, revision)}, and {hub} does not answer ({_reason(error)}); "
            "check the network, or give a local folder"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return SettingsError(
            f"{name} cannot be kept in {error.filename or cache_folder()}: {error.strerror}; "
            "set HF_HOME to a folder with room that can be written to"
        )
    return HubUnreachableError(
        f"{hub} does not answer as a model hub does for {name} ({_reason(error)}); "
        "check HF_ENDPOINT and the network's login page"
    )


def _not_found(name: str, revision: str | None, error: HfHubHTTPError) -> str:
    if isinstance(error, GatedRepoError):
        return f"{name} is gated: accept its terms on the hub and log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return f"{name} has no revision {revision}"
    if isinstance(error, DisabledRepoError):
        return f"{name} is disabled on the hub; take another model, or give a local folder"
    return f"there is no folder and no repository {name} (or it is private: `hf auth login`)"


def _reason(error: Exception) -> str:
    """An error's first line; an error without words is named."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
