"""Networks and generation."""
