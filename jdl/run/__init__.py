"""The only place with a clock, a disk or a screen."""
