"""The protocol: nouns, errors, trees."""
