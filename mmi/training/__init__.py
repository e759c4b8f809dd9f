"""Training: the LightningModule, its optimizer, metrics and callbacks."""
