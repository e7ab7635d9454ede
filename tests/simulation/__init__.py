"""A fleet in virtual time: the product's own limiter, queue, retry and call code, and its own script, under faults.

Everything is drawn from one seed, and the same seed leads to the same step: what is found can be looked at as often as
it takes.  Only these are not the product's:

* the event loops and the time (`world`), and chance (`chance`);
* the transport to the service and the service (`service`);
* redis-py, the network and the store's server (`store`, ``redis.lua``): the script runs in a Lua of its own.

`plan` draws a fleet, `process` runs it, `faults` befall it, `watch` says what must hold, and `simulation` is all of it.
``python -m benchmarks simulate`` runs many seeds.
"""
