"""What engines load, made of the model: exports, quantizations, conversions."""
