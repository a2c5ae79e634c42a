"""Models in processes of their own, looked after: a worker that ends or hangs is started again."""
