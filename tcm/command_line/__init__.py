"""What all command lines have in common, those of the fabrics too: errors in one line, exit codes, tables."""
