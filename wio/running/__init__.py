"""Weights run as networks."""
