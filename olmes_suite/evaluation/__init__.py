"""Making a run: plan, generate, score, record; resuming, scoring again, and floors."""
