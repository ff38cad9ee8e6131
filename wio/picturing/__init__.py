"""Weights and what networks make of an input, as pictures."""
