"""BERT and RoBERTa as one Flax encoder, its heads, and their files."""
