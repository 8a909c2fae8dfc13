"""Everything about speed: how steps are compiled, dispatched and fed."""
