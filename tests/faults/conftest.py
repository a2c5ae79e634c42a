"""What the fault tests share with the integration tests."""

from tests.integration.conftest import quiet_logs, served, shell

__all__ = ["quiet_logs", "served", "shell"]
