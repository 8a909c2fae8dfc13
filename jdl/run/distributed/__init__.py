"""Training one learner in several processes."""
