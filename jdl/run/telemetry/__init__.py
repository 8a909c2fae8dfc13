"""Time, compilations and progress of a run."""
