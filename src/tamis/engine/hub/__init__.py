"""Models of the Hugging Face Hub: what is fetched, and what is here already."""
