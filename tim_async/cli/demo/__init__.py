"""``tim-async demo``: real migrations against an emulator with faults, and a check of every row."""
