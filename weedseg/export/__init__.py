"""Trained network to model file; ends in a check that both say the same, or writes nothing."""
