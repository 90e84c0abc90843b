"""One module per published data set; each reads it where it lies."""
