"""Policies that recognise speech."""
