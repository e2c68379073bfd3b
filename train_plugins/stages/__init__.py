"""Training stages: what each checks, plans, encodes and trains."""
