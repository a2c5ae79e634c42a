from tamis.cli.options import model_options


def test_only_the_models_options_that_were_given_count() -> None:
    parameters = {
        "query": "q",
        "model": "some/model",
        "dtype": None,
        "threads": 0,
        "offline": False,
    }
    assert model_options(parameters) == {"name": "some/model", "threads": 0, "offline": False}


def test_a_verb_may_call_the_model_by_its_settings_name() -> None:
    assert model_options({"name": "some/model", "as_json": True}) == {"name": "some/model"}
