"""Steps that change numbers, done where they are declared."""
