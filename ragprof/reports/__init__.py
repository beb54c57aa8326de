"""Notebooks run headless: what they ask for, papermill, one HTML file, status, schedule."""
