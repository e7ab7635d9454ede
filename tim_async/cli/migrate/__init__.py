"""``tim-async migrate``: rows of a file to the service, so that every row arrives or is named with its reason.

``command`` holds the commands and ``options`` what they are given; ``job`` runs the migration, ``signals`` takes
Ctrl-C, ``tally`` knows how far it is, ``pace`` how long it will take, ``progress`` shows it and ``ending`` says what
came of it; ``rehearsal`` is ``--dry-run``, ``status`` and ``verify`` are the commands of these names, ``journals``
finds the journal they are about, and ``tables`` is what all of these print.  ``load`` and ``work`` are the commands of
these names, for many machines, and ``streams`` is what they and ``status`` are given.
"""
