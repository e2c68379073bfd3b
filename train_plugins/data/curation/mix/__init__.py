"""`olmes data mix`: several sources become one training set that knows what it holds."""
