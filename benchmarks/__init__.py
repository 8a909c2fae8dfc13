"""jdl against what a user would write or pick instead, interleaved in one run."""
