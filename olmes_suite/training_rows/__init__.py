"""Files of training rows, as `olmes train` and `olmes decontam` both read them."""
