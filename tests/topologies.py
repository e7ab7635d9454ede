"""Deployments of a store, each with a failure: real servers, for tests and ``python -m benchmarks deployments``."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from .store import Store, free_port, start_all

DOWN_AFTER = 300
"""Milliseconds after which Sentinels and cluster nodes consider a server down."""
PRIMARY = "quota"
"""The primary's name at the Sentinels."""


class Topology:
    """A deployment, whose servers run within ``with``.

    Attributes:
        url: the URL for clients.
        stores: all servers.
    """

    url: str
    stores: list[Store]

    def __enter__(self) -> Self:
        start_all(self.stores)
        return self

    def __exit__(self, *exception: object) -> None:
        for store in self.stores:
            store.__exit__(None, None, None)

    def disturb(self) -> None:
        """Cause the failure."""
        raise NotImplementedError

    def decided(self) -> bool:
        """Whether there is a primary again."""
        raise NotImplementedError

    def settle(self) -> None:
        """Repair the failure, after a while of calls."""


class Restart(Topology):
    """A single server that is killed and restarted, with or without its data."""

    def __init__(self, folder: Path, server: str = "valkey", *, lasting: bool) -> None:
        settings: dict[str, Any] = {"appendonly": "yes", "appendfsync": "always"} if lasting else {}
        self.stores = [Store(folder / "one", server=server, **settings)]
        self.url = self.stores[0].url

    def disturb(self) -> None:
        self.stores[0].kill()
        time.sleep(0.3)
        self.stores[0].start()

    def decided(self) -> bool:
        return True


class Pair(Topology):
    """A primary and a replica."""

    def __init__(self, folder: Path, server: str = "valkey") -> None:
        self.one = Store(folder / "one", server=server, repl_diskless_sync_delay=0)
        self.two = Store(
            folder / "two", server=server, replicaof=f"127.0.0.1 {self.one.port}", repl_diskless_sync_delay=0
        )
        self.stores = [self.one, self.two]

    def __enter__(self) -> Self:
        super().__enter__()
        with self.two.client() as replica:
            wait(lambda: replica.info("replication")["master_link_status"] == "up")
        return self

    def decided(self) -> bool:
        with self.two.client() as replica:
            return bool(replica.info("replication")["role"] == "master")


class Watched(Pair):
    """A primary and a replica watched by a Sentinel; the first of the URL's two Sentinels does not exist.

    Args:
        folder: the folder for all data.
        server: the server, a key of `SERVERS`.
        freeze: whether the old primary only stops for a while and resumes as a replica, instead of dying.
    """

    def __init__(self, folder: Path, server: str = "valkey", *, freeze: bool) -> None:
        super().__init__(folder, server)
        self._freeze = freeze
        (folder / "sentinel").mkdir(parents=True)
        watch = {
            "sentinel monitor": f"{PRIMARY} 127.0.0.1 {self.one.port} 1",
            "sentinel down-after-milliseconds": f"{PRIMARY} {DOWN_AFTER}",
            "sentinel failover-timeout": f"{PRIMARY} 3000",
        }
        self.sentinel = Store(folder / "sentinel", server=server, sentinel=True, **watch)
        self.url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{self.sentinel.port}/{PRIMARY}"

    def __enter__(self) -> Self:
        super().__enter__()
        self.stores = [*self.stores, self.sentinel]
        self.sentinel.start()
        with self.sentinel.client() as sentinel:
            wait(lambda: _has_replica(sentinel))
        return self

    def disturb(self) -> None:
        self.one.freeze() if self._freeze else self.one.kill()

    def decided(self) -> bool:
        with self.sentinel.client() as sentinel:
            return bool(sentinel.sentinel_get_master_addr_by_name(PRIMARY) == ("127.0.0.1", self.two.port))

    def settle(self) -> None:
        self.one.thaw() if self._freeze else self.one.start()


def _has_replica(sentinel: Redis) -> bool:
    return bool(sentinel.info("sentinel")["master0"]["slaves"] == 1)


class Switched(Pair):
    """A pair behind one address, such as a name or a virtual IP, whose roles an operator switches.

    Open connections stay with the old primary, which keeps running.
    """

    def __enter__(self) -> Self:
        super().__enter__()
        self._address = Address(self.one.port)
        self.url = f"redis://127.0.0.1:{self._address.port}/0"
        return self

    def __exit__(self, *exception: object) -> None:
        self._address.close()
        super().__exit__(*exception)

    def disturb(self) -> None:
        with self.one.client() as one, self.two.client() as two:
            two.replicaof("NO", "ONE")
            one.replicaof("127.0.0.1", self.two.port)
        self._address.target = self.two.port


class Clustered(Topology):
    """A cluster of three primaries, and a replica of the primary that owns a key.

    Args:
        folder: the folder for all data.
        server: the server, a key of `SERVERS`.
        key: the key whose slot the failure affects.
        reshard: whether the slot moves to another primary; otherwise its primary dies.
    """

    def __init__(self, folder: Path, server: str = "valkey", *, key: str, reshard: bool) -> None:
        self.stores = []
        for name in "abcd":
            settings: dict[str, Any] = {
                "cluster-enabled": "yes",
                "cluster-node-timeout": DOWN_AFTER,
                "cluster-replica-validity-factor": 0,
            }
            # By default the bus port is the port plus 10000, which may be out of range.
            bus: dict[str, Any] = {} if server == "redis 6.2" else {"cluster-port": free_port()}
            self.stores.append(Store(folder / name, server=server, **settings, **bus, repl_diskless_sync_delay=0))
        self._slot = key_slot(key.encode())
        self._reshard = reshard
        self.owner, self.replica = self.stores[self._slot // 5462], self.stores[3]
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{store.port}" for store in self.stores[:2])

    def __enter__(self) -> Self:
        super().__enter__()
        with contextlib.ExitStack() as stack:
            nodes = [stack.enter_context(store.client()) for store in self.stores]
            for number, node in enumerate(nodes):
                node.execute_command("CONFIG SET", "cluster-allow-replica-migration", "no")
                node.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                if number < 3:
                    slots = range(5462 * number, min(16384, 5462 * (number + 1)))
                    node.execute_command("CLUSTER ADDSLOTS", *slots)
                for store, other in zip(self.stores[:number], nodes[:number], strict=True):
                    bus = other.execute_command("CONFIG GET", "cluster-port")["cluster-port"]
                    node.execute_command("CLUSTER MEET", "127.0.0.1", store.port, bus)
            ids = [node.execute_command("CLUSTER MYID") for node in nodes]
            wait(lambda: all(len(node.execute_command("CLUSTER NODES")) == 4 for node in nodes))
            owner = self.stores.index(self.owner)
            wait(lambda: _done(lambda: nodes[3].execute_command("CLUSTER REPLICATE", ids[owner])))
            wait(lambda: nodes[3].info("replication").get("master_link_status") == "up")
            wait(lambda: all(node.execute_command("CLUSTER INFO")["cluster_state"] == "ok" for node in nodes))
            wait(lambda: all(_slaves(node) == 1 for node in nodes))
        return self

    def disturb(self) -> None:
        if not self._reshard:
            self.owner.kill()
            return
        target = next(store for store in self.stores[:3] if store is not self.owner)
        with self.owner.client() as source, target.client() as sink:
            from_id, to_id = source.execute_command("CLUSTER MYID"), sink.execute_command("CLUSTER MYID")
            sink.execute_command("CLUSTER SETSLOT", self._slot, "IMPORTING", from_id)
            source.execute_command("CLUSTER SETSLOT", self._slot, "MIGRATING", to_id)
            while keys := source.execute_command("CLUSTER GETKEYSINSLOT", self._slot, 10):
                source.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 1000, "KEYS", *keys)
            for node in (sink, source):
                node.execute_command("CLUSTER SETSLOT", self._slot, "NODE", to_id)

    def decided(self) -> bool:
        if self._reshard:
            return True
        with self.replica.client() as replica:
            return bool(replica.info("replication")["role"] == "master")


def _slaves(node: Any) -> int:
    return sum("slave" in about["flags"] for about in node.execute_command("CLUSTER NODES").values())


def _done(action: Callable[[], Any]) -> bool:
    """Try an action and return whether it succeeded; it fails until a node knows the other."""
    with contextlib.suppress(RedisError):
        action()
        return True
    return False


def wait(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait for a condition by polling."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"the servers did not reach the expected state within {seconds:g} s")
        time.sleep(0.02)


class Address:
    """An address that forwards connections to a port, which can change; open connections keep their target.

    Args:
        target: the target port of new connections.
        first: the target port of the first connection, if different.

    Attributes:
        port: its own port.
        target: the target port of new connections.
    """

    def __init__(self, target: int, *, first: int | None = None) -> None:
        self.target = target
        self._first = first
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                target, self._first = self._first or self.target, None
                far = socket.create_connection(("127.0.0.1", target))
                self._sockets += (near, far)
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def deployments(folder: Path, key: str) -> Iterator[tuple[str, Callable[[], Topology]]]:
    """Yield the deployments, each as its name and a function that makes it."""
    folders = (folder / str(number) for number in range(100))
    yield "single, restarted empty", lambda: Restart(next(folders), lasting=False)
    yield "single, restarted with its data", lambda: Restart(next(folders), lasting=True)
    yield "Redis 8, restarted empty", lambda: Restart(next(folders), "redis 8", lasting=False)
    yield "Sentinel, primary killed", lambda: Watched(next(folders), freeze=False)
    yield "Sentinel, primary frozen, then a replica", lambda: Watched(next(folders), freeze=True)
    yield "Redis 8, Sentinel, primary killed", lambda: Watched(next(folders), "redis 8", freeze=False)
    yield "REPLICAOF behind one address", lambda: Switched(next(folders))
    yield "cluster, primary killed", lambda: Clustered(next(folders), key=key, reshard=False)
    yield "cluster, slot moved", lambda: Clustered(next(folders), key=key, reshard=True)
