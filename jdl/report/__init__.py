"""The pages that a run leaves behind."""
