"""What every other package builds on: the nouns, errors, and functions of pytrees."""
