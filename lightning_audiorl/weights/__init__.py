"""Weights that stand on a disk: read whole, and as what was asked for, or refused by name and path."""
