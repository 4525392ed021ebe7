"""A browser for the tests that want one, and the page of their record served to it."""

from __future__ import annotations

from tests.browser import browser, server  # noqa: F401  fixtures
