"""Several processes that train one learner."""
