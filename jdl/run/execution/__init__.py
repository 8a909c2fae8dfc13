"""Speed: how steps are compiled, dispatched and fed."""
