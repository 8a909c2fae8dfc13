"""The time of a training step and of a start, side by side with Flax, Keras and PyTorch."""
