"""Pure functions over arrays: fit on the training part, apply everywhere."""
