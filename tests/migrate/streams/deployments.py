"""A failover that loses the last writes."""

from __future__ import annotations

from pathlib import Path

from tests.topologies import Address, Pair


class Failing(Pair):
    """A primary and its replica, behind an address that leads to the writable one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._address = Address(self.one.port)
        self.url = f"redis://127.0.0.1:{self._address.port}/0"

    def __exit__(self, *exception: object) -> None:
        self._address.close()
        super().__exit__(*exception)

    def detach(self) -> None:
        """Stop the replication: `fail_over` will lose later writes."""
        with self.two.client() as replica:
            replica.replicaof("NO", "ONE")

    def fail_over(self) -> None:
        """Kill the primary, and direct the address to the replica."""
        self.one.kill()
        self._address.target = self.two.port
