from dataclasses import replace

import msgspec
import pytest

from tamis.engine.facts import ModelFacts

FACTS = ModelFacts("bge", "ctranslate2", "cpu", "int8", 512, 1024, "ab12")


@pytest.mark.parametrize("field", ["name", "runtime", "device", "dtype", "digest"])
def test_whatever_changes_a_logit_changes_the_identity(field: str) -> None:
    assert replace(FACTS, **{field: "other"}).identity != FACTS.identity
    assert replace(FACTS, max_length=128).identity != FACTS.identity


def test_the_token_budget_changes_no_logit_and_not_the_identity() -> None:
    assert replace(FACTS, max_batch_tokens=2048).identity == FACTS.identity


def test_facts_pass_between_processes_unchanged() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(FACTS), type=ModelFacts) == FACTS
