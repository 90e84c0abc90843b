"""Networks: encoder -> decoder -> head, each readable alone."""
