"""How a kernel is laid out, decided by computing."""
