"""`tamis bench`: what a model costs on this machine."""
