"""Running stages and pipelines: launching, failures, one stage, a file of stages."""
