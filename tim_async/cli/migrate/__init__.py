"""``tim-async migrate``: send the rows of a file to the service, and account for every row.

``command`` declares the commands, ``options`` their options, and `settings.Settings` holds the values of the options.
``job`` runs the commands that migrate: ``signals`` stops it, ``tally`` counts its progress, ``display`` shows that, and
``ending`` reports the result.  ``dry_run`` implements ``--dry-run``, ``status`` the commands ``status``, ``set`` and
``drop``, and ``verify`` the command ``verify``.  ``files`` finds journals and checks files; ``tables`` formats the
output of all of them.
"""
