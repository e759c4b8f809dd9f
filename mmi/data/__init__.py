"""Documents, sources, encoding, packing, mixture and collation."""
