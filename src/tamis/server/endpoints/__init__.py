"""What is answered at which path, one file a path or a family of them."""
