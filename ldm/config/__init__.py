"""Settings and command lines, above all other layers: imported by scripts only."""
