"""A migration in virtual time: the product's own engine and stores, crashed at any await and at any write.

Everything is drawn from one seed, as for a fleet: see `tests.simulation`.  Only these are not the product's:

* the event loops, the time and chance (`world`, `chance`), and the threads that work for them (`threads`);
* the transport to the service, and the service (`service`);
* SQLite's way to the disk (`disk`, `sqlite`): the journal is written by a real SQLite to real files, and each of its
  writes can be the last one, whole, torn, or lost as far as it was not synchronized;
* redis-py, the network and the store's server (`tests.simulation.store`, ``streams.lua``): the scripts of a stream run
  in a Lua of their own.

`plan` draws a migration, `process` runs it, `watch` says what must hold, and `simulation` is all of it: processes, one
after the other or some at a time, each of which ends in its own way, until all rows are settled.
``python -m benchmarks simulate --migrations`` runs many seeds.
"""
