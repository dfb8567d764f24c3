"""Keeping a model in memory for a while."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from townhall.server.service import Service


class ModelLease:
    """A model that stays in memory until `release`; a context manager that gives its service."""

    def __init__(self, service: "Service", release: Callable[[], object] = lambda: None):
        self.service, self._release = service, release

    def __enter__(self) -> "Service":
        return self.service

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Once; more often does nothing."""
        release, self._release = self._release, lambda: None
        release()

    def __del__(self) -> None:
        self.release()
