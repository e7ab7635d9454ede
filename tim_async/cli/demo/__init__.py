"""``tim-async demo``: the main job on a sample of real exports, against an emulator with faults.

``command`` is the command; ``sample`` reads the file, ``world`` decides what the service is to hold and what must
come of it, ``service`` and ``process`` run the emulator apart from the client, ``run`` and ``naive`` are the two ways
of doing the job, ``progress`` watches, ``compare`` judges, and ``report`` says what came of it.
"""
