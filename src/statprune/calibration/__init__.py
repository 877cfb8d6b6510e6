"""Calibration data, and its way through the model."""
