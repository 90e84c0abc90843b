"""Evaluation: confusion matrix -> every score, intervals, calibration, baselines, plots."""
