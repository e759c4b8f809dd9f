"""Pages that a person reads: one self-contained HTML file each, without network, scripts or outside fonts."""
