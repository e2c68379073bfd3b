"""Tasks and suites: their index, the sources of their documents, and their loading."""
