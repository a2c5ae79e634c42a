import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import tamis
from tamis.bench.environment import environment

ROOT = Path(__file__).parents[3]


def git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_checkout_names_its_commit_and_whether_it_was_changed() -> None:
    found = environment()
    assert found["commit"] == git("rev-parse", "--short", "HEAD")
    assert found["uncommitted_changes"] == bool(git("status", "-s", "--untracked-files=no"))


def test_an_installed_copy_names_no_commit_of_the_repository_it_lies_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / "__init__.py").touch()
    monkeypatch.setattr(tamis, "__file__", str(tmp_path / "__init__.py"))
    found = environment()
    assert (found["commit"], found["uncommitted_changes"]) == (None, None)


def test_what_is_not_installed_has_no_version() -> None:
    packages = environment(("numpy", "a-package-that-is-not-there"))["packages"]
    assert packages["numpy"]
    assert packages["a-package-that-is-not-there"] is None


def test_the_time_is_of_now_and_in_utc() -> None:
    measured_at = datetime.fromisoformat(environment()["measured_at_utc"])
    assert measured_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - measured_at) < timedelta(minutes=1)
