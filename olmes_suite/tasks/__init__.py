"""Tasks and suites: which there are, where their documents come from, and how they are loaded."""
