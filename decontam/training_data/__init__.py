"""Training sets: their files, formats, rows and columns, and clean copies of them."""
