from pathlib import Path

from tamis.assembly.served import LocalModel, WorkersModel
from tamis.engine.loading import LoadedModel
from tamis.errors import RuntimeUnavailableError
from tamis.settings import ModelSettings
from tamis.workers.pool import TokenizerLoader, WorkerPool
from tests.fake_worker import COMMAND, write_plan
from tests.integration.serving import fake_model


def test_a_model_in_this_process_has_one_backend_and_is_what_it_says() -> None:
    model = fake_model()
    served = LocalModel(model, lambda one: one.backend, lambda _: model)

    assert list(served.backends) == [model.backend]
    assert served.in_process
    assert served.workers == ()
    assert list(served.facts_now()) == [served.facts]


def test_a_spare_in_float32_falls_back_to_what_the_folder_has() -> None:
    asked: list[str] = []

    def load(settings: ModelSettings) -> LoadedModel:
        asked.append(settings.dtype)
        if settings.dtype == "float32":
            raise RuntimeUnavailableError("converted to int8")
        return fake_model()

    served = LocalModel(fake_model(), lambda one: one.backend, load)

    assert served.spare(ModelSettings(dtype="float32"))() is not None
    assert asked == ["float32", "auto"]


def test_a_model_in_workers_has_one_backend_a_worker_and_one_spare_for_all(tmp_path: Path) -> None:
    settings = ModelSettings(name=str(write_plan(tmp_path / "model", "answers")), threads=1)
    pools: list[WorkerPool] = []

    def make_pool(n_workers: int, read_tokenizer: TokenizerLoader) -> WorkerPool:
        pools.append(
            WorkerPool(settings, n_workers, command=COMMAND, read_tokenizer=read_tokenizer)
        )
        return pools[-1]

    try:
        pool = make_pool(2, lambda _settings, _folder: fake_model().tokenizer)
        pool.open()
        served = WorkersModel(pool, lambda _settings, read_tokenizer: make_pool(1, read_tokenizer))
        spare = served.spare(settings)

        assert len(served.backends) == len(served.workers) == len(served.facts_now()) == 2
        assert not served.in_process
        assert spare() is spare() is pools[1].backends[0]
        assert pools[1].tokenizer is served.tokenizer
    finally:
        for each in pools:
            each.close()
