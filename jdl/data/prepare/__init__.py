"""Preprocessing as pure functions: fit on the training split, apply to every split."""
