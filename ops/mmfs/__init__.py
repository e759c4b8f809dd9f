"""MMFS."""
