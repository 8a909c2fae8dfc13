"""Adapters that turn Linen modules, NNX modules and plain functions into a `Model`."""
