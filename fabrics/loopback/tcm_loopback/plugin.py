"""Hooks of this distribution."""
