"""Tests of `tim_async.doctor`: each finding is caused once."""
