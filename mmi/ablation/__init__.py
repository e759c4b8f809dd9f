"""Ablations: experiments as matrices of cells, each trained and evaluated once and shared by every table that asks."""
