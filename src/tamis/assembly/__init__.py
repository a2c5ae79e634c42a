"""Settings, models and observers -> services: the one place where parts are put together."""
