"""Where rows of metrics go besides the run directory."""
