"""How the calls of one endpoint are let go: the queue, and the limiter it leads to."""
