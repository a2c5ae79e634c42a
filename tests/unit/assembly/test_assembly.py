"""Settings, models and observers -> services, without a server."""

import asyncio
from pathlib import Path

import pytest

from tamis.assembly.assembly import Assembly, HostedModel
from tamis.engine.loading import LoadedModel
from tamis.errors import ModelError, SettingsError, ShuttingDownError
from tamis.observability.metrics import Metrics
from tamis.settings import ModelSettings, Settings
from tamis.types import RerankRequest
from tests.integration.serving import NO_CACHE, fake_model, named

ASKED = RerankRequest("what is a panda", ("a bear", "paris"))


async def test_settings_and_a_loader_are_enough_for_a_service_that_answers() -> None:
    assembly = Assembly(Settings(), Metrics(), load=lambda _: fake_model())
    await assembly.load()
    service = assembly.default.service
    assert service is not None
    assert len((await service.rerank(ASKED)).results) == 2
    assert (await service.rerank(ASKED)).usage.n_cached == 2
    await assembly.close()
    with pytest.raises(ShuttingDownError):
        await service.rerank(ASKED)


async def test_it_holds_several_models_by_name_each_with_a_service_of_its_own() -> None:
    loaded = {name: named(fake_model(), name) for name in ("first", "second")}
    settings = Settings.model_validate(NO_CACHE | {"model": {"name": "first"}})
    assembly = Assembly(settings, Metrics(), load=lambda model: loaded[model.name])
    assembly.models["second"] = HostedModel(ModelSettings(name="second"))
    await assembly.load()
    services = [one.service for one in assembly.models.values() if one.service is not None]
    assert [(await service.rerank(ASKED)).model for service in services] == ["first", "second"]
    assert assembly.default.settings.name == "first"
    await assembly.close()
    assert [service.statistics().running for service in services] == [False, False]


def test_what_began_before_there_was_a_loop_is_not_loaded_again() -> None:
    seen: list[str] = []

    def load(settings: ModelSettings) -> LoadedModel:
        seen.append(settings.name)
        return fake_model()

    async def finish() -> None:
        await assembly.load()
        assert not assembly.is_loading
        await assembly.close()

    assembly = Assembly(Settings(), Metrics(), load=load)
    assembly.begin()
    asyncio.run(finish())
    assert len(seen) == 1


async def test_a_model_that_cannot_be_loaded_is_the_error_it_was_and_all_can_be_closed() -> None:
    def load(_: ModelSettings) -> LoadedModel:
        raise ModelError("not whole")

    assembly = Assembly(Settings(), Metrics(), load=load)
    with pytest.raises(ModelError, match="not whole"):
        await assembly.load()
    assert (assembly.default.model, assembly.default.service, assembly.cache) == (None, None, None)
    await assembly.close()


def test_a_baseline_that_cannot_be_read_is_the_watchs_error(tmp_path: Path) -> None:
    settings = Settings.model_validate({"relevance": {"baseline": tmp_path / "nowhere.json"}})
    with pytest.raises(SettingsError, match="nowhere"):
        _ = Assembly(settings, Metrics()).watch
