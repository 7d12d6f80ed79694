"""Families: an input, a mask and a head over the one stack."""
