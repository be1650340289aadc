"""The stages: one module each, one public ``run``, a function from artifacts and configuration to one artifact."""
