"""``tim-async demo``: migrations, as they are run, against an emulator with faults; and the judgement of every row."""
