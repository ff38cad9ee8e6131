"""Files that lie elsewhere, under URLs: fetched in the ranges that are read, and written by uploads."""
