"""Evaluation: planning, generating, scoring, recording, resuming and scoring again, and the floor."""
