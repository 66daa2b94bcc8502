"""Every op, one file per family."""
