"""BERT and its relatives as one Flax encoder, its heads, and their files."""
