"""Settings and command lines; builds what the settings say. Imported by scripts and ldm.api only."""
