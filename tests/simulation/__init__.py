"""A fleet in virtual time: the product's own limiter, queue, retry and call code, and its own script, under faults.

Everything is drawn from one seed, and a seed always leads to the same steps, so a failure can be replayed.  Only these
parts are not the product's:

* the event loops and the time (`world`), and chance (`chance`);
* the transport to the service and the service (`service`);
* redis-py, the network and the store's server (`store`, ``redis.lua``): the script runs in a Lua of its own.

`plan` draws a fleet, `process` runs it, `faults` disturbs it, `watch` checks the invariants, and `simulation` combines
them.  ``python -m benchmarks simulate`` runs many seeds.
"""
