"""The pace of one endpoint: the queue of its calls, and the limiter that grants their permits."""
