"""Making and changing models: initialisation, fine-tuning, averaging."""
