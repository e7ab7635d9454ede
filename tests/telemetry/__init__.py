"""`tim_async.telemetry` exports exactly the attempts that the server saw and the results that callers got."""
