"""Telemetry that exists -> tables: one format or backend per module."""
