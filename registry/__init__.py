"""wio's own registry: one TOML file for each architecture, and ``dialects/`` for naming habits of libraries."""
