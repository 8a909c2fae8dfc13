"""What a trained model has learned, and what it is made of."""
