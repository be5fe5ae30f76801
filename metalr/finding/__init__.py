"""The learning-rate finder: a probe of a few steps, and what is known of such runs."""
