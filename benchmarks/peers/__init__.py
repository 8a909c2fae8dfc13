"""One file for each way to train the same networks."""
