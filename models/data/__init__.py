"""What networks are trained and tested on: datasets, augmentation, label noise, activations."""
