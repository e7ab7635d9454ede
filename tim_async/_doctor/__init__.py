"""`doctor`: examines a client's configuration, its connection to the service, its rights and its quota; never writes.

``_checks`` has the table of checks and runs them; ``_configuration``, ``_network`` (``_way``), ``_service``,
``_regions``, ``_quota`` and ``_probe`` hold the checks; ``_visit`` holds what they share, and ``_findings`` what they
return.
"""

from __future__ import annotations

from ._checks import doctor
from ._findings import Finding

__all__ = ["Finding", "doctor"]
