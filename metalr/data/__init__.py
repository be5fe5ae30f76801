"""Where rows come from, how they become tokens, and how they are batched."""
