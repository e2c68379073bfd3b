"""Text as tokens: how both sides are cut into words and hashed."""
