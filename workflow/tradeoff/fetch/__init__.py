"""What a study stands on, verified: models, published quantized checkpoints, corpora."""
