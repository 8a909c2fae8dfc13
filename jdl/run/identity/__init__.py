"""What a run is, so that a resume can tell whether it is still the same."""
