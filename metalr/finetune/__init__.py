"""One fine-tune: configuration, data, optimizer, loop, result."""
