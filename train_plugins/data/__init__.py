"""Training data: sets, messages, and rows as token ids."""
