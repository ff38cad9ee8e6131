"""Networks as data: the registry's files, and the dialects that name their weights."""
