"""Whom to choose from: the slate of candidates, where it comes from, and the plain signals of each candidate."""
