"""What ``wio check`` looks for: rules over graphs, over values and over mappings, each a function to findings."""
