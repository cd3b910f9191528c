"""The two failures that people read: of a configuration, and of what nobody has configured wrong."""

from __future__ import annotations


class ConfigError(Exception):
    """A configuration that cannot work. The message says what, where, and what to write instead, in one line."""


class RuntimeFailure(Exception):
    """Something failed while starting or serving; the text is one line for people."""
