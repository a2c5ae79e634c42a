"""What every request passes on its way to an endpoint, one file each. Plain ASGI."""
