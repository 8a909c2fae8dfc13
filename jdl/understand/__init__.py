"""Inspect a model: its parameters, its features, its receptive field, its generated images."""
