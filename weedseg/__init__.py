"""weedseg: few labels, many field photos, one small weed segmenter."""

__version__ = "0.1.0"
