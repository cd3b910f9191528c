"""The failure that is nobody's mistake in a configuration."""

from __future__ import annotations


class RuntimeFailure(Exception):
    """Something failed while starting or serving; the text is one line for people."""
