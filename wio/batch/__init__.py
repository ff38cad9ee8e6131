"""Many conversions in one go: which files, in which processes, and which of them are done already."""
