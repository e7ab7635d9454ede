"""A migration in virtual time: the product's own engine and stores, crashed at any await and at any write.

Everything is drawn from one seed, as for a fleet: see `tests.simulation`.  Only these parts are not the product's:

* the event loops, the time and randomness (`world`, `chance`), and the worker threads (`threads`);
* the transport to the service, and the service (`service`);
* SQLite's file system (`disk`, `sqlite`): a real SQLite writes the journal to real files, and each write can be the
  last one, whole or torn, or be lost if it was not synchronized;
* redis-py, the network and the store's server (`tests.simulation.store`, ``streams.lua``): the scripts of a stream run
  in a Lua of their own.

`plan` draws a migration, `process` runs it, `watch` checks the invariants, and `simulation` combines them: processes
run one after the other or concurrently, and each ends in its own way, until all rows are settled.
``python -m benchmarks simulate --migrations`` runs many seeds.
"""
