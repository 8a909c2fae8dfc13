"""The heart: gradients, learners and their transforms."""
