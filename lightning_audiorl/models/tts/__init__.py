"""Policies that write speech tokens, and the language model of text alone."""
