"""Tables in, tables out: pure functions over the five tables, one subject per module."""
