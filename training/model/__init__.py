"""The model: its base, the training, the projection, the head, and the folder it is written to."""
