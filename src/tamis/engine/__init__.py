"""Text in, logits out; knows no queue and no HTTP."""
