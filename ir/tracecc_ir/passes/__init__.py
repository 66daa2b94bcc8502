"""Graph to graph passes, one small file each."""
