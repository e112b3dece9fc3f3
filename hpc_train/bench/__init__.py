"""Measurements that users run: one package per subject, and the harness that all of them share."""
