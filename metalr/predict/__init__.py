"""Fine-tuned models in use: rows in, the same rows with labels or answers out."""
