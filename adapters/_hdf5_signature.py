"""What every HDF5 file begins with (HDF5 File Format Specification 3.0, II.A), known without what reads one."""

MAGIC = b"\x89HDF\r\n\x1a\n"
