"""Whether two weight files hold the same network, and where they part."""
