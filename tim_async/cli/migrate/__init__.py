"""``tim-async migrate``: the rows of a file to the service, so that every row arrives or is named with its reason.

``command`` holds the commands and ``options`` their options, whose values `settings.Settings` holds.  ``job`` runs the
commands that migrate: ``signals`` ends it, ``tally`` knows its progress, ``throughput`` the time left, ``display``
shows both, and ``ending`` reports the end.  ``rehearsal`` is ``--dry-run``, ``status`` is ``status``, ``set`` and
``drop``, and ``verify`` is ``verify``.  ``places`` finds journals and checks files; ``tables`` is what all
print.
"""
