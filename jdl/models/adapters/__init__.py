"""Anybody's network becomes a `Model`."""
