"""Training stages on TRL, each of which ends in a checkpoint with a record of its lineage."""
