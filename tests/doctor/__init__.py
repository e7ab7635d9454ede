"""`tim_async.doctor`: each finding is provoked, and named."""
