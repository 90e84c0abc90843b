"""Self-pretraining: reconstruct hidden patches, and hide those that are hardest to reconstruct.

Source: Wang & Stavness, arXiv 2512.06981. Patches, scoring and selection are pure functions.
"""
