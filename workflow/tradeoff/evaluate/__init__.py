"""Per-token log-probabilities by convention, divergence from the baseline, text, diagnosis."""
