"""Model-level fusion: one network over several modalities."""
