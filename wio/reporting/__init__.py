"""Pages for a browser: one file each, nothing fetched, every name from a weight file escaped."""
