"""What `tim_async.telemetry` exports is what the server saw and what callers got."""
