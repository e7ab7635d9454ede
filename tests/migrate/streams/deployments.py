"""A store whose replica takes over without what was written last."""

from __future__ import annotations

from pathlib import Path

from tests.topologies import Address, Pair


class Failing(Pair):
    """A primary and its replica, behind an address that leads to whichever is to be written to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._address = Address(self.one.port)
        self.url = f"redis://127.0.0.1:{self._address.port}/0"

    def __exit__(self, *exception: object) -> None:
        self._address.close()
        super().__exit__(*exception)

    def detach(self) -> None:
        """Have the replica get no more: what is written from now on is lost by `fail_over`."""
        with self.two.client() as replica:
            replica.replicaof("NO", "ONE")

    def fail_over(self) -> None:
        """Kill the primary, and write to the replica from now on."""
        self.one.kill()
        self._address.target = self.two.port
