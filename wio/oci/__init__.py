"""Weights and architectures in an OCI registry: ``spec/oci.md`` is the norm of how they lie there."""
