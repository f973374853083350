"""Candidates trained to the end with everything recorded that a search might look at, as committed tables."""
