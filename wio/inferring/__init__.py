"""Names and layouts learnt from two files of the same weights."""
