"""Running a learner: the loop, and everything that uses a clock, a disk or the screen."""
