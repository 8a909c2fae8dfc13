"""Files to arrays. Nothing in a file is ever executed."""
